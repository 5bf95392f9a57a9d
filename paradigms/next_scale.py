"""Next-scale prediction: an image's codes grid by grid, coarse to fine, each grid at once (VAR, Tian et al. 2024).

Letters: B images, N tokens of all grids, S tokens of a grid, C channels of a code's vector, D width, M condition tokens, K grids.

The codes of a grid are independent given all coarser ones (section 3.2). What is shown of these is the image that they make so
far, the sum of their vectors, averaged over the areas of the next grid: each of its tokens has its own input, and a mask lets a
grid see itself and the coarser ones (section 3.2, figure 4). The condition's prefix belongs to the first grid, whose input is the
empty image, so that with one grid the method is a model of independent codes. Sampling takes one pass per grid over a key-value
cache.

Grids of any sides run, those of the published code (1, 2, 3, 4, 5, 6, 8, 10, 13, 16: 680 tokens) among them. Left out of the
paper: top-k and top-p, guidance that grows with the scale, normalized queries of its own, the convolution after a grid is
enlarged, and its learned codebook (bench/tokenizers/residual.py; another package's tokenizer may bring one).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from bench.backbone import BackboneConfig, linear, table
from bench.key_value_cache import KeyValueCache
from bench.paradigm import (
    Condition,
    ConditionSpace,
    Guidance,
    Paradigm,
    TokenSpace,
    check_sampling,
    enlarge,
    shrink,
    sums_of_scales,
)
from paradigms.heads import CrossEntropy


class NextScale(Paradigm):
    """Reads codes of several scales whose vectors are known."""

    vectors: Tensor
    scale_of: Tensor
    reads = "codes"
    grids = "several"
    loss_unit = "nats per token"
    default_steps = None

    def __init__(self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace) -> None:
        super().__init__(backbone, space, conditions)
        if space.code_vectors is None:
            raise ValueError("next-scale prediction adds up the vectors of codes; give it a tokenizer that states them (FSQ)")
        here = torch.get_default_device()
        self.register_buffer("vectors", space.code_vectors.to(here), persistent=False)
        numbers = [number for number, size in enumerate(space.sizes) for _ in range(size)]
        self.register_buffer("scale_of", torch.tensor(numbers), persistent=False)
        self.embed_image = linear(self.vectors.shape[1], backbone.width)
        self.positions = table(space.num_tokens, backbone.width)
        self.scale_embedding = table(len(space.scales), backbone.width)
        self.head = CrossEntropy(space, backbone.width)

    @property
    def places(self) -> Tensor:
        """Embedded position and scale of each token, (N, D)."""
        return self.positions + self.scale_embedding[self.scale_of]

    def inputs(self, tokens: Tensor) -> Tensor:
        """What is shown at each token of codes (B, N): the image of all coarser grids, averaged over its block, (B, N, C)."""
        grid, parts = self.space.grid, tokens.split(self.space.sizes, dim=1)[:-1]
        empty = self.vectors.new_zeros(len(tokens), grid**2, self.vectors.shape[1])
        images = itertools.chain([empty], sums_of_scales((self.vectors[part] for part in parts), grid))
        return torch.cat([shrink(image, side) for image, side in zip(images, self.space.scales, strict=True)], dim=1)

    def contexts(self, tokens: Tensor, condition: Condition) -> Tensor:
        """The backbone's output (B, N, D) at every token of codes (B, N), given the coarser grids."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_image(self.inputs(tokens)) + self.places], dim=1)
        numbers = torch.cat([self.scale_of.new_zeros(prefix.shape[1]), self.scale_of])  # of each position, (M + N,)
        return self.backbone(sequence, vector, mask=numbers[:, None] >= numbers)[:, prefix.shape[1] :]

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.contexts(tokens, condition)
        return self.head.loss(out.flatten(0, 1), tokens.flatten()).view(tokens.shape).mean(1), {}

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Exact, of the codes of all grids."""
        out = self.contexts(tokens, condition)
        return self.head.negative_log_likelihood(out.flatten(0, 1), tokens.flatten()).view(tokens.shape).sum(1)

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """steps must be None or the number of grids; temperature is that of the softmax from which codes are drawn."""
        scales, grid = self.space.scales, self.space.grid
        if steps not in (None, len(scales)):
            raise ValueError(f"next-scale prediction draws one scale per step: it takes exactly {len(scales)} steps, not {steps}")
        check_sampling(steps, temperature)
        guide = Guidance(condition, guidance)
        prefix, vector = self.embed_condition(guide.condition)
        cache = KeyValueCache(self.backbone.config.depth, prefix.shape[1] + self.space.num_tokens)
        image, drawn = self.vectors.new_zeros(len(condition), grid**2, self.vectors.shape[1]), []
        for side, where in zip(scales, self.places.split(self.space.sizes), strict=True):
            shown = guide.double(self.embed_image(shrink(image, side)) + where)
            out = self.backbone(torch.cat([prefix, shown], dim=1), vector, cache=cache)[:, prefix.shape[1] :]
            codes = self.head.draw(guide.mix(self.head.logits(out).float()), temperature, generator)
            image, prefix = image + enlarge(self.vectors[codes], grid), prefix[:, :0]
            drawn.append(codes)
        return torch.cat(drawn, dim=1)
