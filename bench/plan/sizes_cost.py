"""The cost of every size of a method from a few counted ones, exactly.

With everything else fixed a transformer's FLOPs are linear in depth and quadratic in width, whatever its heads. Six small models
decide the polynomial and two more check it; where a check fails, as for a network that is built otherwise, every size is counted
whole. Parameters are counted, not predicted. So a plan up to 10^10 parameters counts no large model.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache

from bench.config.size import Size, size
from bench.plan.cost import RunCost

WIDTHS = (64, 128, 192)
DEPTHS = (2, 4)
"""Even, because some methods divide the stack into halves."""
CHECKS = (size(16, 4), size(256, 6))
"""Sizes at which the polynomial is compared with the count."""

Flops = tuple[Fraction, Fraction]
"""Dense and causal."""


def exact_costs(count: Callable[[Size], RunCost], parameters: Callable[[Size], int]) -> Callable[[Size], RunCost]:
    """Costs of any size, equal to `count` of it, which is called for small sizes only where that is exact.

    Args:
        count: counts one size whole.
        parameters: counts its parameters alone.
    """
    counted = cache(count)

    def flops(wanted: Size) -> Flops:
        cost = counted(wanted)
        return Fraction(cost.dense), Fraction(cost.causal)

    def predicted(width: int, depth: int) -> Flops:
        rows = [[flops(size(w, d)) for d in DEPTHS] for w in WIDTHS]
        across = [[_through(DEPTHS, list(values), depth) for values in zip(*row, strict=True)] for row in rows]
        dense, causal = (_through(WIDTHS, list(values), width) for values in zip(*across, strict=True))
        return dense, causal

    @cache
    def proven() -> bool:
        try:
            return all(predicted(check.width, check.depth) == flops(check) for check in CHECKS)
        except ValueError:  # the method refuses one of the small sizes
            return False

    @cache
    def cost(wanted: Size) -> RunCost:
        if wanted.depth % 2 or not proven():
            return counted(wanted)
        dense, causal = predicted(wanted.width, wanted.depth)
        return RunCost(parameters(wanted), float(dense), float(causal))

    return cost


def _through(places: tuple[int, ...], values: list[Fraction], x: int) -> Fraction:
    """The polynomial through these points at x, exactly (Lagrange)."""
    total = Fraction(0)
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        for j, other in enumerate(places):
            if i != j:
                value *= Fraction(x - other, place - other)
        total += value
    return total
