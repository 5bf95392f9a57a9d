"""In which order tokens are revealed, and how many at each step.

Letters: B images, N tokens, K places.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_orders(batch: int, num_tokens: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A permutation of the places per image, (B, N) int64, each equally likely."""
    return torch.rand(batch, num_tokens, generator=generator, device=device).argsort(1)


def take(x: Tensor, places: Tensor) -> Tensor:
    """The entries of x (B, N, ...) at places (B, K): (B, K, ...)."""
    return x.gather(1, places) if x.ndim == 2 else x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))


def put(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """x (B, N, ...) with values (B, K, ...) at places (B, K)."""
    return x.scatter(1, places if x.ndim == 2 else places[..., None].expand(-1, -1, x.shape[2]), values)


def _check_steps(num_tokens: int, steps: int) -> None:
    if not 1 <= steps <= num_tokens:
        raise ValueError(f"steps must be 1 to {num_tokens} (the number of tokens), not {steps}")


def cosine_schedule(num_tokens: int, steps: int) -> list[int]:
    """Tokens still masked after each of `steps` steps: floor(N cos(pi/2 k / steps)), at least one revealed each time.

    The clamp to [1, current - 1] before the last step is that of the MAR code (Li et al. 2024); the law is MaskGIT's (Chang et
    al. 2022, section 3.2). The last entry is 0, so that every token is revealed exactly once.

    Raises:
        ValueError: when steps is not in 1..num_tokens.
    """
    _check_steps(num_tokens, steps)
    remaining, current = [], num_tokens
    for k in range(1, steps):
        current = max(1, min(current - 1, math.floor(num_tokens * math.cos(math.pi / 2 * k / steps))))
        remaining.append(current)
    return [*remaining, 0]


def linear_schedule(num_tokens: int, steps: int) -> list[int]:
    """Tokens still masked after each of `steps` steps: floor(N (1 - k / steps)), as even as whole tokens allow.

    It is the mean of absorbing diffusion's reverse process, in which every hidden token is revealed with probability (t - s) / t
    between equally spaced times t and s (Sahoo et al. 2024, section 3.2). With steps = N tokens are revealed one by one in random
    order, which that process does in the limit of many steps.

    Raises:
        ValueError: when steps is not in 1..num_tokens.
    """
    _check_steps(num_tokens, steps)
    return [num_tokens * (steps - k) // steps for k in range(1, steps + 1)]
