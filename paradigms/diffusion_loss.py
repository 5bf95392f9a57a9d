"""Diffusion Loss: a small per-token denoising MLP in place of a softmax (Li et al. 2024, section 3.2).

Letters: R rows (tokens), C token channels, D condition width, W MLP width.

The cosine schedule of Nichol & Dhariwal 2021 over 1,000 training steps; ancestral sampling on respaced steps. The network
predicts the noise, as published, or the velocity sqrt(abar) noise - sqrt(1 - abar) token (Salimans & Ho 2022, appendix D),
whose loss keeps its weight where the token is nearly all noise. It knows nothing of sequences or images.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import linear, modulate
from paradigms.diffusion import TimeEmbedding

NUM_TRAIN_STEPS = 1000
"""Li et al. 2024, section 4."""


class HeadBlock(nn.Module):
    """x + gate * (Linear, SiLU, Linear)(LN(x) (1 + scale) + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(linear(width, width), nn.SiLU(), linear(width, width))
        self.modulation = linear(width, 3 * width, std=0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        return x + gate * self.mlp(modulate(self.norm(x), shift, scale))


class DiffusionLoss(nn.Module):
    """p(token | condition vector) as a conditional diffusion model."""

    abar: Tensor

    def __init__(
        self,
        channels: int,
        condition_width: int,
        *,
        width: int,
        depth: int,
        multiplier: int = 4,
        condition_at_input: bool = False,
        time_features: int = 256,
        prediction: Literal["noise", "velocity"] = "noise",
        noise_shift: float = 1.0,
    ) -> None:
        """Options of the head.

        multiplier: noise draws per token and step.
        condition_at_input: add the condition to the MLP's input too (published: through adaLN alone).
        prediction: what the network outputs and the loss compares.
        noise_shift: see `cosine_abar`.
        """
        super().__init__()
        self.channels, self.multiplier, self.condition_at_input = channels, multiplier, condition_at_input
        self.embed_token = linear(channels, width)
        self.embed_condition = linear(condition_width, width)
        self.embed_time = TimeEmbedding(time_features, width)
        self.blocks = nn.ModuleList(HeadBlock(width) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.final_modulation = linear(width, 2 * width, std=0)
        self.out = linear(width, channels, std=0)
        self.prediction = prediction
        self.noise_shift = noise_shift
        self.register_buffer("abar", cosine_abar(NUM_TRAIN_STEPS, noise_shift), persistent=False)

    def predict(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Predicted noise or velocity (R, C) for noisy tokens x (R, C) at steps t (R,), given embedded conditions (R, W)."""
        vector = F.silu(condition + self.embed_time(t))
        x = self.embed_token(x)
        if self.condition_at_input:
            x = x + condition
        for block in self.blocks:
            x = block(x, vector)
        shift, scale = self.final_modulation(vector).chunk(2, dim=-1)
        return self.out(modulate(self.final_norm(x), shift, scale))

    def loss(self, condition: Tensor, target: Tensor) -> Tensor:
        """Squared error per row (R,), averaged over `multiplier` draws, for condition (R, D) and target (R, C)."""
        rows = len(target)
        embedded = self.embed_condition(condition).repeat(self.multiplier, 1)
        target = target.repeat(self.multiplier, 1)
        t = torch.randint(NUM_TRAIN_STEPS, (len(target),), device=target.device)
        noise = torch.randn_like(target)
        abar = self.abar[t][:, None]
        noisy = abar.sqrt() * target + (1 - abar).sqrt() * noise
        truth = noise if self.prediction == "noise" else abar.sqrt() * noise - (1 - abar).sqrt() * target
        error = (self.predict(noisy, t, embedded).float() - truth).square().mean(1)
        return error.view(self.multiplier, rows).mean(0)

    def sample(
        self,
        condition: Tensor,
        *,
        steps: int,
        temperature: float,
        guidance: float,
        generator: torch.Generator,
        clip: float | None = None,
    ) -> Tensor:
        """Draw tokens (R, C) for conditions (R, D), or (2R, D) with the hidden branch second when guidance is not 1.

        Guidance acts on the prediction, which is the same for noise and velocity. Temperature multiplies the noise of every
        step but not the initial one, and the last step adds none (as in the MAR code). clip limits the predicted clean token
        to [-clip, clip]: near pure noise an error of the predicted noise is multiplied by 1 / sqrt(abar), up to 20,000.
        """
        guided = guidance != 1.0
        embedded = self.embed_condition(condition)
        rows = len(embedded) // 2 if guided else len(embedded)
        x = torch.randn(rows, self.channels, generator=generator, device=embedded.device)
        kept = respaced_steps(NUM_TRAIN_STEPS, steps)
        schedule = sampling_schedule(self.noise_shift)
        abars = [schedule[t] for t in kept]
        for index in reversed(range(steps)):
            abar, previous = abars[index], abars[index - 1] if index else 1.0
            doubled = torch.cat([x, x]) if guided else x
            t = torch.full((len(doubled),), kept[index], device=x.device)
            out = self.predict(doubled, t, embedded).float()
            if guided:
                conditioned, hidden = out.chunk(2)
                out = hidden + guidance * (conditioned - hidden)
            beta = 1 - abar / previous
            if self.prediction == "noise":
                x0 = (x - math.sqrt(1 - abar) * out) / math.sqrt(abar)
            else:
                x0 = math.sqrt(abar) * x - math.sqrt(1 - abar) * out
            if clip is not None:
                x0 = x0.clamp(-clip, clip)
            mean = (math.sqrt(previous) * beta * x0 + math.sqrt(1 - beta) * (1 - previous) * x) / (1 - abar)
            x = mean
            if index:
                spread = math.sqrt(beta * (1 - previous) / (1 - abar)) * temperature
                x = x + spread * torch.randn(x.shape, generator=generator, device=x.device)
        return x


def cosine_abar(num_steps: int, noise_shift: float = 1.0) -> Tensor:
    """Cumulative signal share after each step, (num_steps,) float32, with beta at most 0.999 (Nichol & Dhariwal 2021).

    noise_shift s divides every signal-to-noise ratio by s^2 (Hoogeboom et al. 2023, section 3.1): a token of many redundant
    channels is recognizable through more noise than one channel is.
    """
    edges = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    law = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - law[1:] / law[:-1]).clamp(max=0.999)
    abar = (1 - beta).cumprod(0)
    return (abar / (abar + noise_shift**2 * (1 - abar))).float()


@cache
def sampling_schedule(noise_shift: float) -> tuple[float, ...]:
    """`cosine_abar` of all training steps as Python numbers: on a GPU, reading them from the buffer would wait for it."""
    return tuple(cosine_abar(NUM_TRAIN_STEPS, noise_shift).double().tolist())


def respaced_steps(num_train_steps: int, steps: int) -> list[int]:
    """Evenly spaced training steps from 0 to the last, ascending.

    Raises:
        ValueError: when steps is not in 2..num_train_steps.
    """
    if not 2 <= steps <= num_train_steps:
        raise ValueError(f"diffusion steps of the head must be 2 to {num_train_steps}, not {steps}")
    return [round(i * (num_train_steps - 1) / (steps - 1)) for i in range(steps)]
