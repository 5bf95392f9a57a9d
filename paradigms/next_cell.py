"""Next-cell prediction: flow matching of one cell of tokens after another (xAR, Ren et al. 2025).

Letters: B images, N tokens, C latent channels, D width, M condition tokens, K cells, T tokens of a cell.

The token grid is divided into square cells. Each has a time and noise of its own, x_t = (1 - t) x + t noise, and one network
predicts the velocities noise - x of all cells at once: a cell sees itself and the cells before it, noised as they are ("Noisy
Context Learning"), and is modulated by its own time. The condition's prefix belongs to the first cell, so that with
one cell the method is the suite's flow matching. Sampling goes cell by cell in raster order; a finished cell is read once more at
time 0 into the key-value cache.

Left out of the paper: its stochastic sampler (Euler steps of the ordinary equation here), guidance that grows with the cells, and
other entities than cells (subsamples, scales, whole images).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from bench.backbone import BackboneConfig, linear, table
from bench.key_value_cache import KeyValueCache
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.embedding import TimeEmbedding, token_embedding
from paradigms.gaussian_diffusion import NUM_TRAIN_STEPS


class NextCell(Paradigm):
    """Flow matching inside cells, autoregression over them."""

    places: Tensor
    cell_of: Tensor
    reads = "latents"
    loss_unit = "squared velocity error per latent value"
    default_steps = 16

    def __init__(
        self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace, *, cell: int | None = None
    ) -> None:
        """cell: its side in tokens; None takes half the grid, 4 cells as published. Those at the right and lower
        edge are smaller where it does not divide the grid."""
        super().__init__(backbone, space, conditions)
        side = (space.grid + 1) // 2 if cell is None else cell
        if not 1 <= side <= space.grid:
            raise ValueError(f"cell must be 1 to {space.grid} (the side of the token grid), not {cell}")
        cells = cells_of(space.grid, side)
        self.sizes = [len(places) for places in cells]
        self.register_buffer("places", torch.tensor([place for places in cells for place in places]), persistent=False)
        self.register_buffer(
            "cell_of", torch.tensor([number for number, places in enumerate(cells) for _ in places]), persistent=False
        )
        self.embed_tokens = token_embedding(space, backbone.width)
        self.positions = table(space.num_tokens, backbone.width)
        self.embed_time = TimeEmbedding(256, backbone.width)
        self.head = linear(backbone.width, space.channels, std=0)

    def predict(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """Predicted velocities (B, N, C) at noised latents x (B, N, C), both by cells, and times (B, K) in 0..1."""
        prefix, vector = self.embed_condition(condition)
        cells = torch.cat([self.cell_of.new_zeros(prefix.shape[1]), self.cell_of])  # of each position, (M + N,)
        sequence = torch.cat([prefix, self.embed_tokens(x) + self.positions[self.places]], dim=1)
        vectors = vector[:, None] + self.embed_time(times * NUM_TRAIN_STEPS)
        out = self.backbone(sequence, vectors, groups=cells, mask=cells[:, None] >= cells)
        return self.head(out[:, prefix.shape[1] :])

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        times = torch.sigmoid(torch.randn(len(tokens), len(self.sizes), device=tokens.device))
        noise = torch.randn_like(tokens)[:, self.places]
        tokens = tokens[:, self.places]
        mixed = tokens + times[:, self.cell_of, None] * (noise - tokens)
        error = self.predict(mixed, times, condition).float() - (noise - tokens)
        return error.square().mean((1, 2)), {}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """steps of each cell; temperature scales the initial noise."""
        steps = self.default_steps if steps is None else steps
        check_sampling(steps, temperature)
        guide = Guidance(condition, guidance)
        prefix, vector = self.embed_condition(guide.condition)
        cache = KeyValueCache(self.backbone.config.depth, prefix.shape[1] + self.space.num_tokens)
        shape = (len(condition), self.space.num_tokens, self.space.channels)
        noise = torch.randn(shape, generator=generator, device=self.device)[:, self.places] * temperature
        positions, finished = self.positions[self.places].split(self.sizes), []
        for x, where in zip(noise.split(self.sizes, dim=1), positions, strict=True):
            for now, then in itertools.pairwise(torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu").tolist()):
                length = cache.length
                x = x + (then - now) * self.read(x, where, now, prefix, vector, cache, guide)
                cache.length = length  # what a noisy cell left there is overwritten
            finished.append(x)
            if len(finished) < len(self.sizes):
                self.read(x, where, 0.0, prefix, vector, cache, guide)
            prefix = prefix[:, :0]
        return torch.cat(finished, dim=1)[:, self.places.argsort()]

    def read(
        self, x: Tensor, where: Tensor, time: float, prefix: Tensor, vector: Tensor, cache: KeyValueCache, guide: Guidance
    ) -> Tensor:
        """Guided velocity (B, T, C) of a cell x (B, T, C) at a time in 0..1 after the cells in the cache, which grows by it.

        Args:
            where: (T, D) embedded positions.
            prefix: (B, M, D) before the first cell, empty later; or of both branches, as the pooled vector (B, D).
        """
        times = torch.full((len(vector),), time * NUM_TRAIN_STEPS, device=x.device)
        sequence = torch.cat([prefix, guide.double(self.embed_tokens(x) + where)], dim=1)
        out = self.backbone(sequence, vector + self.embed_time(times), cache=cache)
        return guide.mix(self.head(out[:, prefix.shape[1] :]).float())


def cells_of(grid: int, side: int) -> list[list[int]]:
    """The places of each cell, both in raster order."""
    starts = range(0, grid, side)
    return [
        [row * grid + column for row in range(top, min(top + side, grid)) for column in range(left, min(left + side, grid))]
        for top in starts
        for left in starts
    ]
