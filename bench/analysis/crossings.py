"""Where two fitted methods meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.analysis.intervals import LEVELS
from bench.analysis.scaling import EXTRAPOLATION_DECADES, ScalingFit
from bench.progress import format_number

SURE = 0.95
"""Share of draws with a crossing above which there is one, and share without above which there is none."""
POINTS_PER_DECADE = 50


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where two methods' fitted curves meet, over draws of both."""

    first: str
    second: str
    share_without: float
    """Share of draws with no crossing in the range looked at."""
    quantiles: tuple[float, float, float] | None
    """Training FLOPs: 2.5 %, 50 %, 97.5 % of the draws that have one."""
    inside: bool
    """Whether the median lies inside the measured budgets."""
    searched: tuple[float, float] = (math.nan, math.nan)
    """Training FLOPs between which it was looked for."""

    @property
    def state(self) -> Literal["crossing", "no crossing", "undetermined"]:
        """What nearly all draws agree on, if they do."""
        if self.quantiles is not None and self.share_without <= 1 - SURE:
            return "crossing"
        return "no crossing" if self.share_without >= SURE else "undetermined"

    def __str__(self) -> str:
        names, share = f"{self.first} and {self.second}", f"{1 - self.share_without:.0%} of draws have one"
        if self.state == "no crossing" or self.quantiles is None:
            low, high = self.searched
            return f"{names}: no crossing between {format_number(low)} and {format_number(high)} FLOPs ({share})"
        low, middle, high = self.quantiles
        where = "interpolated" if self.inside else "extrapolated"
        span = f"{format_number(middle)} FLOPs, 95 % interval {format_number(low)} to {format_number(high)}, {where}"
        return f"{names}: {span}; {share}" if self.state == "crossing" else f"{names}: undetermined, {share}; among these {span}"


def crossing(a: ScalingFit, b: ScalingFit) -> Crossing:
    """The training FLOPs at which two fitted methods are equal, within the measured budgets and a decade around them.

    Raises:
        ValueError: when one of them has no fit.
    """
    if a.law is None or b.law is None:
        raise ValueError(f"{a.method if a.law is None else b.method} has no fit to cross with")
    both = np.concatenate([a.compute, b.compute])
    low, high = math.log10(both.min()) - EXTRAPOLATION_DECADES, math.log10(both.max()) + EXTRAPOLATION_DECADES
    points = np.linspace(low, high, round(POINTS_PER_DECADE * (high - low)))
    curves_a, curves_b = a.curves(10.0**points), b.curves(10.0**points)
    pairs = max(len(curves_a), len(curves_b))
    gap = np.log(np.resize(curves_a, (pairs, len(points)))) - np.log(np.resize(curves_b, (pairs, len(points))))
    changes = np.diff(np.sign(gap), axis=1) != 0
    found = changes.any(1)
    share, searched = float(1 - found.mean()), (10.0**low, 10.0**high)
    if not found.any():
        return Crossing(a.method, b.method, share, None, False, searched)
    left, drawn = changes[found].argmax(1), gap[found]
    rows = np.arange(len(drawn))
    before, after = drawn[rows, left], drawn[rows, left + 1]
    # the laws are smooth: a straight line between points a fiftieth of a decade apart is exact to 1e-3
    roots = points[left] - before * (points[left + 1] - points[left]) / (after - before)
    values = 10.0 ** np.percentile(roots, LEVELS)
    inside = bool(both.min() <= values[1] <= both.max())
    return Crossing(a.method, b.method, share, (float(values[0]), float(values[1]), float(values[2])), inside, searched)
