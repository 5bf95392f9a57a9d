"""The cost of every size of a method from a few small ones, exactly.

With everything else fixed a transformer's FLOPs are linear in depth and quadratic in width, and so are its parameters. Seven
small models decide the polynomial and check it; where the check fails, as for a network that is built otherwise, every size is
counted whole. So a plan up to 10^10 parameters takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache

from bench.config.size import HEAD_WIDTH, SMALL_WIDTH, Size, size
from bench.plan.cost import RunCost

WIDTHS = (64, 128, 192)
DEPTHS = (2, 4)
"""Even, because some methods divide the stack into halves."""
CHECK = (256, 6)
"""Width and depth at which the polynomial is compared with the count."""


def exact_costs(count: Callable[[Size], RunCost]) -> Callable[[Size], RunCost]:
    """Costs of any size, equal to `count` of it, which is called for small sizes only where that is exact.

    Args:
        count: counts one size whole.
    """

    @cache
    def counted(width: int, depth: int) -> tuple[Fraction, ...]:
        heads = size(width, depth).num_heads if width > SMALL_WIDTH else width // HEAD_WIDTH
        return _numbers(count(Size(width=width, depth=depth, num_heads=heads)))

    @cache
    def holds() -> bool:
        try:
            return predicted(*CHECK) == counted(*CHECK)
        except ValueError:  # the method refuses one of the small sizes
            return False

    def predicted(width: int, depth: int) -> tuple[Fraction, ...]:
        corners = [[counted(w, d) for d in DEPTHS] for w in WIDTHS]
        across = [tuple(_through(DEPTHS, values, depth) for values in zip(*row, strict=True)) for row in corners]
        return tuple(_through(WIDTHS, values, width) for values in zip(*across, strict=True))

    @cache
    def cost(wanted: Size) -> RunCost:
        regular = wanted.width == HEAD_WIDTH * wanted.num_heads and wanted.depth % 2 == 0
        small = wanted.width <= max(WIDTHS) and wanted.depth <= max(DEPTHS)
        if not regular or small or not holds():
            return count(wanted)
        parameters, dense, causal = predicted(wanted.width, wanted.depth)
        return RunCost(int(parameters), float(dense), float(causal))

    return cost


def _numbers(cost: RunCost) -> tuple[Fraction, ...]:
    return Fraction(cost.num_params), Fraction(cost.dense), Fraction(cost.causal)


def _through(places: tuple[int, ...], values: tuple[Fraction, ...], x: int) -> Fraction:
    """The polynomial through these points at x, exactly (Lagrange)."""
    total = Fraction(0)
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        for j, other in enumerate(places):
            if i != j:
                value *= Fraction(x - other, place - other)
        total += value
    return total
