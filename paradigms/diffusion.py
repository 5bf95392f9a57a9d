"""Latent diffusion with a transformer (DiT), trained by flow matching.

Letters: B images, N tokens, C latent channels, D width, M condition tokens.

x_t = (1 - t) x + t noise, and the network predicts the velocity noise - x (Lipman et al. 2023; SiT, Ma et al. 2024). Time
and condition modulate every block by adaLN-Zero as in DiT (Peebles & Xie 2023); the condition is also a prefix.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling


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
        return self.layers(sinusoids(t, self.num_features))


class Diffusion(Paradigm):
    """Flow matching with logit-normal times, Euler sampling."""

    reads = "latents"
    loss_unit = "squared velocity error per latent value"
    default_steps = 16

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        time_shift: float = 1.0,
    ) -> None:
        """time_shift: s in t -> s t / (1 + (s - 1) t); above 1 spends more time near noise (Esser et al. 2024, 5.3.2)."""
        super().__init__(backbone, space, conditions)
        self.time_shift = time_shift
        self.embed_tokens = linear(space.channels, backbone.width)
        self.positions = table(space.num_tokens, backbone.width)
        self.embed_time = TimeEmbedding(256, backbone.width)
        self.head = linear(backbone.width, space.channels, std=0)

    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predicted velocity (B, N, C) at x (B, N, C) and times t (B,)."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_tokens(x) + self.positions], dim=1)
        out = self.backbone(sequence, vector + self.embed_time(t * 1000.0))
        return self.head(out[:, prefix.shape[1] :])

    def shift_time(self, t: Tensor) -> Tensor:
        """Map uniform progress to shifted times; 0 and 1 stay."""
        return self.time_shift * t / (1 + (self.time_shift - 1) * t)

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        t = self.shift_time(torch.sigmoid(torch.randn(len(tokens), device=tokens.device)))
        noise = torch.randn_like(tokens)
        mixed = tokens + t[:, None, None] * (noise - tokens)
        error = self.velocity(mixed, t, condition).float() - (noise - tokens)
        return error.square().mean((1, 2)), {}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """temperature scales the standard deviation of the initial noise."""
        steps = self.default_steps if steps is None else steps
        check_sampling(steps, temperature)
        guide = Guidance(condition, guidance)
        shape = (len(condition), self.space.num_tokens, self.space.channels)
        x = torch.randn(shape, generator=generator, device=self.device) * temperature
        times = self.shift_time(torch.linspace(1, 0, steps + 1, device=self.device))
        for now, then in itertools.pairwise(times):
            t = now.expand(len(guide.condition))
            x = x + (then - now) * guide.mix(self.velocity(guide.double(x), t, guide.condition).float())
        return x
