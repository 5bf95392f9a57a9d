"""Tokens and times to vectors.

Letters: B images, N tokens, C latent channels, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.backbone import linear
from bench.paradigm import TokenSpace


def token_embedding(space: TokenSpace, width: int, num_extra: int = 0) -> nn.Module:
    """Latents (..., C) by a linear layer, or codes (...) by a table with `num_extra` more rows, to vectors (..., D)."""
    if space.kind == "latents":
        return linear(space.channels, width)
    embedding = nn.Embedding(space.vocabulary + num_extra, width)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding


def sinusoids(t: Tensor, num_features: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features of times scaled to 0..1000: (...) to (..., num_features), as in DiT."""
    half = num_features // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = t.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Times in 0..1000 (...) to vectors (..., D): sinusoids, then a two-layer MLP."""

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.layers = nn.Sequential(linear(num_features, width, std=0.02), nn.SiLU(), linear(width, width, std=0.02))

    def forward(self, t: Tensor) -> Tensor:
        """Times (B,) in 0..1 to (B, D)."""
        return self.layers(sinusoids(t, self.num_features))
