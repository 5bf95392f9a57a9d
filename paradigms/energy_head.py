"""The energy score: a small MLP draws a token in one pass, and is trained by distances between draws and the token (EAR).

Letters: R rows (tokens), C token channels, D condition width, W MLP width, E noise channels.

Shao et al. 2025 (arXiv 2505.07812): with two draws x1 and x2 of the generator and the true token y the loss is
|x1 - y|^a + |x2 - y|^a - tau |x1 - x2|^a, a strictly proper scoring rule for 0 < a < 2 and tau = 1. The generator is that of
the published code (shaochenze/EAR, models/scoreloss.py): the condition is the MLP's input, noise enters by adaLN. Left out are
the head's own learning rate (a quarter of the backbone's) and the last epochs with tau = .99, which are matters of a recipe.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import linear, modulate
from bench.conditioning import mix_branches
from bench.paradigm import TokenSpace
from paradigms.diffusion_loss import HeadBlock
from paradigms.token_head import TokenHead

SMALLEST = 1e-12
"""Added to squared distances: two draws are equal before the first step, where a power of their distance has no gradient."""


class EnergyHead(TokenHead):
    """p(token | condition vector) as the law of a generator's output under uniform noise."""

    reads = "latents"
    loss_unit = "energy score per token"

    def __init__(
        self,
        space: TokenSpace,
        condition_width: int,
        *,
        width: int = 1024,
        relative_width: float | None = None,
        depth: int = 3,
        noise_channels: int = 64,
        exponent: float = 1.0,
        spread: float = 1.0,
    ) -> None:
        """Options of the head; the defaults are those of the published code.

        width, depth: of the MLP (EAR-B: 6 blocks).
        relative_width: the MLP's width as a multiple of the condition's, in place of `width`: a head that grows with the model.
        noise_channels: E, uniform numbers in -1/2..1/2 that one draw is made of.
        exponent: a; near 2 the score tells little more than the mean.
        spread: tau, the weight of the distance between the draws; below 1 they lie closer together than the data.
        """
        super().__init__()
        if not 0 < exponent < 2:
            raise ValueError(f"exponent must be above 0 and below 2, not {exponent}")
        if not 0 <= spread <= 1:
            raise ValueError(f"spread must be at least 0 and at most 1, not {spread}")
        if relative_width is not None:
            width = round(relative_width * condition_width)
        self.noise_channels, self.exponent, self.spread = noise_channels, exponent, spread
        self.embed_condition = linear(condition_width, width)
        self.embed_noise = linear(noise_channels, width)
        self.blocks = nn.ModuleList(HeadBlock(width) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.final_modulation = linear(width, 2 * width, std=0)
        self.out = linear(width, space.channels, std=0)

    def generate(self, embedded: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Tokens (R, C) made of embedded conditions (R, W) and noise (R, E)."""
        vector = F.silu(self.embed_noise(noise))
        x = embedded
        for block in self.blocks:
            x = block(x, vector, temperature)
        shift, scale = self.final_modulation(vector).chunk(2, dim=-1)
        return self.out(modulate(self.final_norm(x), shift, scale)).float()

    def distance(self, left: Tensor, right: Tensor) -> Tensor:
        """|left - right|^a (R,), the Euclidean norm over the channels of (R, C)."""
        return ((left - right).square().sum(1) + SMALLEST).pow(self.exponent / 2)

    def loss(self, condition: Tensor, target: Tensor) -> Tensor:
        """Two draws per token; for a = 1 and tau <= 1 it is at least 0 by the triangle inequality."""
        noise = torch.rand(len(condition), 2, self.noise_channels, device=condition.device) - 0.5
        first, second = self.generate(self.embed_condition(condition).repeat(2, 1), noise.transpose(0, 1).flatten(0, 1)).chunk(2)
        errors = self.distance(first, target) + self.distance(second, target)
        return errors - self.spread * self.distance(first, second)

    def sample(self, condition: Tensor, *, temperature: float, guidance: float, generator: torch.Generator) -> Tensor:
        """One pass per token. As published, guidance mixes the vectors before the head, and temperature multiplies the shifts
        that noise gives to the MLP's blocks."""
        mixed = mix_branches(condition, guidance)
        noise = torch.rand(len(mixed), self.noise_channels, generator=generator, device=mixed.device) - 0.5
        return self.generate(self.embed_condition(mixed), noise, temperature)
