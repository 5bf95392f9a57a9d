"""How many tokens a parallel decoder reveals at each step."""

from __future__ import annotations

import math


def cosine_schedule(num_tokens: int, steps: int) -> list[int]:
    """Tokens still masked after each of `steps` steps: floor(N cos(pi/2 k / steps)), at least one revealed each time.

    The clamp to [1, current - 1] before the last step is that of the MAR code (Li et al. 2024); the law is MaskGIT's (Chang et
    al. 2022, section 3.2). The last entry is 0, so that every token is revealed exactly once.

    Raises:
        ValueError: when steps is not in 1..num_tokens.
    """
    if not 1 <= steps <= num_tokens:
        raise ValueError(f"steps must be 1 to {num_tokens} (the number of tokens), not {steps}")
    remaining, current = [], num_tokens
    for k in range(1, steps):
        current = max(1, min(current - 1, math.floor(num_tokens * math.cos(math.pi / 2 * k / steps))))
        remaining.append(current)
    return [*remaining, 0]
