"""Codes of several scales: each grid quantizes what the coarser ones left of the latents (VAR, Tian et al. 2024, algorithm 1).

Letters: B images, N tokens of the finest grid, S tokens of all grids, C latent channels, V codes, K grids.

Every grid shares one finite scalar codebook (Mentzer et al. 2023), whose values are multiples of one step per channel, and a
coarse code speaks for its whole block. So the sum of the grids is the latents rounded to that step, wherever the codebook's range
reaches; a coarse code decides what is left to the finer ones and nothing else. Left out of the paper: bicubic enlargement with a
convolution after it, which would take the sum off the steps, and a learned codebook.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.paradigm import enlarge, shrink, sums_of_scales

RANGE = 1.5
"""Largest absolute value of the latents before they are quantized; one grid reaches from -1 to 1 less a step. After 1,500 steps
the sprites' twin rebuilt .69, .73 and .53 of 500 test images exactly at .9, 1.5 and 3, and the discrete twin of one grid .71."""


def code_vectors(levels: Sequence[int]) -> Tensor:
    """The vectors (V, C) float32 of a finite scalar codebook with so many levels per channel, on the CPU: those of
    vector-quantize-pytorch."""
    codes, columns = torch.arange(math.prod(levels), device="cpu"), []
    for number in levels:
        columns.append((codes % number - number // 2) / (number // 2))
        codes = codes // number
    return torch.stack(columns, dim=1)


class ResidualQuantizer(nn.Module):
    """Latents to the codes of several grids and back, without parameters."""

    levels: Tensor
    vectors: Tensor

    def __init__(self, levels: Sequence[int], scales: Sequence[int]) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("vectors", code_vectors(levels).to(torch.get_default_device()), persistent=False)

    def nearest(self, latents: Tensor) -> Tensor:
        """The codes (...) nearest to latents (..., C)."""
        half = self.levels // 2
        places = ((latents * half).round().long() + half).clamp_min(0).minimum(self.levels - 1)
        return (places * self.levels.cumprod(0).div(self.levels, rounding_mode="floor")).sum(-1)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, N, C) to the sum of the grids (B, N, C), with the gradient of the bounded latents, and codes (B, S)."""
        bounded = RANGE * torch.tanh(latents / RANGE)
        codes, image = [], torch.zeros_like(latents)
        for side in self.scales:
            codes.append(self.nearest(shrink(bounded.detach() - image, side)))
            image = image + enlarge(self.vectors[codes[-1]], self.scales[-1])
        return bounded + (image - bounded).detach(), torch.cat(codes, dim=1)

    def indices_to_codes(self, codes: Tensor) -> Tensor:
        """Codes (B, S) to the sum of the grids (B, N, C)."""
        parts = codes.split([side**2 for side in self.scales], dim=1)
        *_, image = sums_of_scales((self.vectors[part] for part in parts), self.scales[-1])
        return image
