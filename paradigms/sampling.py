"""Drawing codes from logits."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(shape: torch.Size | tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise."""
    uniform = torch.rand(shape, generator=generator, device=device).clamp_(1e-20, 1.0)
    return -torch.log((-torch.log(uniform)).clamp_min(1e-20))


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One code per row of logits (..., V), by the Gumbel-max trick at the given temperature."""
    logits = logits.float()
    return (logits + temperature * gumbel(logits.shape, generator, logits.device)).argmax(-1)
