"""A ladder: the budget chooses sizes, rungs, batch, rates and images; an experiment may fix any of them. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.config.size import Size

LEAST_SIZES = 4
"""At every rung, so that a minimum can lie inside."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What an experiment fixes of its ladder; None leaves the choice to the laws (bench/laws, docs/dial.md)."""

    sizes: tuple[Size, ...] | None = None
    """Trained at every rung by every method."""
    rungs: tuple[float, ...] | None = None
    """Budgets as shares of the top rung, ascending, ending with 1."""
    num_seeds: int = 3
    """Of the sizes at which claims read: those within a factor CLAIM_FACTOR of the best; the others get one."""
    batch_size: int | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    precision: Literal["bf16", "fp32"] | None = None
    num_training_images: int | None = None
    """Of a procedural world; of images the recipe says how many there are."""

    def __post_init__(self) -> None:
        if self.num_seeds < 1:
            raise ValueError(f"ladder: num_seeds={self.num_seeds} must be at least 1")
        if self.rungs is not None and (
            not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[-1] != 1 or self.rungs[0] <= 0
        ):
            raise ValueError(f"ladder: rungs must ascend from above 0 and end with 1, not {self.rungs}")
        if self.sizes is None:
            return
        names = [size.name for size in self.sizes]
        wrong = [size for size in self.sizes if min(size.width, size.depth, size.num_heads) < 1 or size.width % size.num_heads]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"ladder: sizes must differ and be at least one, not {', '.join(names) or 'none'}")
        if wrong:
            raise ValueError(f"ladder: {wrong[0]} needs a positive depth and a width that is a multiple of num_heads")
