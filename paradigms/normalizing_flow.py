"""Autoregressive normalizing flow over latents (TarFlow, Zhai et al. 2024; on latents as STARFlow, Gu et al. 2025).

Letters: B images, N tokens, C latent channels, D width, M condition tokens, K flows.

The stack is divided into K flows of L / K blocks. Each is an affine map of the tokens in which the earlier ones, and the
condition, decide shift and log scale of the next: z = (x - shift) exp(-log scale). The flows read the tokens by turns from the
first to the last and from the last to the first, so that together they are a density over whole images with an exact likelihood
and an exact inverse ("Block Autoregressive Flows").

Left out of the paper: the score-based denoising of finished samples (they keep the input noise here), guidance that
grows along the sequence, and the attention temperature of unconditional guidance. Here the condition is a prefix, which decides
the first token too; the paper leaves the first token of each flow as it is and adds its class to every token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.backbone import BackboneConfig, linear, table
from bench.key_value_cache import KeyValueCache
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.embedding import token_embedding


class AffineFlow(nn.Module):
    """What one flow has beside its blocks: embedding, positions, norm and head; and how it reads the tokens."""

    def __init__(self, space: TokenSpace, width: int, blocks: slice, *, from_last: bool, is_last: bool) -> None:
        super().__init__()
        self.blocks, self.from_last = blocks, from_last
        self.embed_tokens = token_embedding(space, width)
        self.positions = table(space.num_tokens, width)
        self.norm = nn.Identity() if is_last else nn.LayerNorm(width, eps=1e-6)  # after the last block the backbone has its own
        self.head = linear(width, 2 * space.channels, std=0)

    def turn(self, x: Tensor) -> Tensor:
        """(B, N, ...) from the data's order to the flow's, or back."""
        return x.flip(1) if self.from_last else x

    def embed(self, x: Tensor, start: int = 0) -> Tensor:
        """Tokens (B, T, C) at the places start, start + 1 .. of the flow's order to (B, T, D)."""
        return self.embed_tokens(x) + self.positions[start : start + x.shape[1]]


class NormalizingFlow(Paradigm):
    """Maximum likelihood of slightly noised latents."""

    reads = "latents"
    loss_unit = "nats per latent value, less the constant ln(2 pi) / 2"
    default_steps = None

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        flows: int = 2,
        noise: float = 0.05,
    ) -> None:
        """Options beside the three that every paradigm takes.

        flows: K, which must divide the depth; the paper has 8 of 8 blocks.
        noise: standard deviation of Gaussian noise that is added to the latents in training. Without any, the density of a
            finite data set has no upper bound ("Noise Augmented Training"; .05 for images of 64 pixels).
        """
        super().__init__(backbone, space, conditions)
        if flows < 1 or backbone.depth % flows:
            raise ValueError(f"flows must divide the backbone's {backbone.depth} blocks, not be {flows}")
        if noise < 0:
            raise ValueError(f"noise must be at least 0, not {noise}")
        self.noise = noise
        length = backbone.depth // flows
        self.flows = nn.ModuleList(
            AffineFlow(
                space,
                backbone.width,
                slice(index * length, (index + 1) * length),
                from_last=index % 2 == 1,
                is_last=index == flows - 1,
            )
            for index in range(flows)
        )

    def affine(self, flow: AffineFlow, x: Tensor, prefix: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log scale (B, N, C) of each token of x (B, N, C), in the flow's order, given those before it and the embedded
        condition (B, M, D) and (B, D)."""
        sequence = torch.cat([prefix, flow.embed(x[:, :-1])], dim=1)
        out = self.backbone(sequence, vector, causal=True, blocks=flow.blocks)[:, prefix.shape[1] - 1 :]
        shift, log_scale = flow.head(flow.norm(out)).float().chunk(2, dim=2)
        return shift, log_scale

    def encode(self, x: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Latents (B, N, C) to z (B, N, C), and the sum over flows of the mean log scale (B,): the map's log-determinant is -N C
        times it."""
        prefix, vector = self.embed_condition(condition)
        log_scales = x.new_zeros(len(x))
        for flow in self.flows:
            assert isinstance(flow, AffineFlow)
            x = flow.turn(x)
            shift, log_scale = self.affine(flow, x, prefix, vector)
            x = flow.turn((x - shift) * torch.exp(-log_scale))
            log_scales = log_scales + log_scale.mean((1, 2))
        return x, log_scales

    def decode(self, z: Tensor, guide: Guidance) -> Tensor:
        """The inverse of `encode`, (B, N, C) to (B, N, C), one token after the other in each flow; shift and log scale are guided
        ("Guidance")."""
        prefix, vector = self.embed_condition(guide.condition)
        cache = KeyValueCache(self.backbone.config.depth, prefix.shape[1] + self.space.num_tokens - 1)
        x = z
        for flow in reversed(self.flows):
            assert isinstance(flow, AffineFlow)
            cache.length = 0  # each flow fills the rows of its own blocks
            z, sequence, tokens = flow.turn(x), prefix, []
            for place in range(self.space.num_tokens):
                out = self.backbone(sequence, vector, causal=True, cache=cache, blocks=flow.blocks)[:, -1:]
                shift, log_scale = guide.mix(flow.head(flow.norm(out)).float()).chunk(2, dim=2)
                tokens.append(z[:, place : place + 1] * torch.exp(log_scale) + shift)
                sequence = flow.embed(guide.double(tokens[-1]), place)
            x = flow.turn(torch.cat(tokens, dim=1))
        return x

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        """-log density per latent value, which may be negative."""
        z, log_scales = self.encode(tokens + self.noise * torch.randn_like(tokens), condition)
        return 0.5 * z.square().mean((1, 2)) + log_scales, {"log_scale": log_scales.detach().mean()}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """steps must be None or the number of tokens; temperature scales the prior's standard deviation."""
        length = self.space.num_tokens
        if steps not in (None, length):
            raise ValueError(f"a flow is inverted one token at a time: it takes exactly {length} steps, not {steps}")
        check_sampling(steps, temperature)
        shape = (len(condition), length, self.space.channels)
        z = torch.randn(shape, generator=generator, device=self.device) * temperature
        return self.decode(z, Guidance(condition, guidance))
