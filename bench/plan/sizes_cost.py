"""The cost of every size of a method from a few small ones, exactly.

With everything else fixed a transformer's FLOPs are linear in depth and quadratic in width, and so are its parameters. A few
small models decide the polynomial of a family of sizes, and one more checks it; where the check fails, as for a network that is
built otherwise, every size is counted whole. So a plan up to 10^10 parameters counts no large model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from bench.config.size import HEAD_WIDTH, SMALL_HEADS, Size
from bench.plan.cost import RunCost

Numbers = tuple[Fraction, ...]
"""Parameters, dense and causal FLOPs."""


@dataclass(frozen=True)
class Family:
    """Sizes whose cost one polynomial gives: their heads follow from the width by one rule."""

    widths: tuple[int, ...]
    """Three, at which sizes are counted."""
    depths: tuple[int, ...]
    """Two, even because some methods divide the stack into halves; one where all sizes have it."""
    check: tuple[int, int]
    """Width and depth at which the polynomial is compared with the count."""
    num_heads: Callable[[int], int]

    def size(self, width: int, depth: int) -> Size:
        """Its size of a width and depth."""
        return Size(width=width, depth=depth, num_heads=self.num_heads(width))

    def holds(self, size: Size) -> bool:
        """Whether a size belongs to it."""
        whole = size.depth % 2 == 0 if len(self.depths) > 1 else size.depth in self.depths
        return whole and size == self.size(size.width, size.depth)


FAMILIES = (
    Family((16, 32, 64), (4,), (48, 4), lambda width: SMALL_HEADS.get(width, 0)),
    Family((64, 128, 192), (2, 4), (256, 6), lambda width: width // HEAD_WIDTH),
)
"""Widths up to 64, and multiples of 64."""


def exact_costs(count: Callable[[Size], RunCost]) -> Callable[[Size], RunCost]:
    """Costs of any size, equal to `count` of it, which is called for small sizes only where that is exact.

    Args:
        count: counts one size whole.
    """
    counted = cache(count)

    def numbers(size: Size) -> Numbers:
        cost = counted(size)
        return Fraction(cost.num_params), Fraction(cost.dense), Fraction(cost.causal)

    def predicted(family: Family, width: int, depth: int) -> Numbers:
        rows = [[numbers(family.size(w, d)) for d in family.depths] for w in family.widths]
        across = [tuple(_through(family.depths, values, depth) for values in zip(*row, strict=True)) for row in rows]
        return tuple(_through(family.widths, values, width) for values in zip(*across, strict=True))

    @cache
    def proven(family: Family) -> bool:
        try:
            return predicted(family, *family.check) == numbers(family.size(*family.check))
        except ValueError:  # the method refuses one of the small sizes
            return False

    @cache
    def cost(size: Size) -> RunCost:
        family = next((each for each in FAMILIES if each.holds(size)), None)
        if family is None or not proven(family):
            return counted(size)
        parameters, dense, causal = predicted(family, size.width, size.depth)
        return RunCost(int(parameters), float(dense), float(causal))

    return cost


def _through(places: tuple[int, ...], values: tuple[Fraction, ...], x: int) -> Fraction:
    """The polynomial through these points at x, exactly (Lagrange)."""
    total = Fraction(0)
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        for j, other in enumerate(places):
            if i != j:
                value *= Fraction(x - other, place - other)
        total += value
    return total
