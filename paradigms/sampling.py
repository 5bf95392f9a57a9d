"""Drawing codes from logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gumbel(shape: torch.Size | tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise (...) of a shape."""
    uniform = torch.rand(shape, generator=generator, device=device).clamp_(1e-20, 1.0)
    return -torch.log((-torch.log(uniform)).clamp_min(1e-20))


def draw(
    logits: Tensor, temperature: float, generator: torch.Generator, *, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """One code per row of logits (..., V), by the Gumbel-max trick at the given temperature, among those that `restrict`
    leaves."""
    logits = restrict(logits.float() / temperature, top_k, top_p)
    return (logits + gumbel(logits.shape, generator, logits.device)).argmax(-1)


def restrict(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Logits (..., V) with the codes outside the k likeliest, then those outside the nucleus of probability p, at -inf.

    The nucleus is the smallest set of likeliest codes whose probabilities sum to at least p (Holtzman et al. 2020).
    """
    if top_k is not None:
        least = logits.topk(top_k, dim=-1)[0][..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p < 1.0:
        ordered, index = logits.sort(dim=-1, descending=True)
        shares = ordered.softmax(-1)
        outside = shares.cumsum(-1) - shares >= top_p  # what comes before already holds p
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(-1, index, outside), -math.inf)
    return logits
