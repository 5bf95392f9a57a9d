"""Where two fitted methods meet, and the best size at a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.analysis.laws import Array
from bench.analysis.scaling import EXTRAPOLATION_DECADES, LEVELS, ScalingFit


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where two methods' fitted curves meet, from bootstrap draws."""

    first: str
    second: str
    share_without: float
    """Share of draws with no crossing in the range looked at."""
    quantiles: tuple[float, float, float] | None
    """Training FLOPs: 2.5 %, 50 %, 97.5 % of the draws that have one."""
    inside: bool
    """Whether the median lies inside the measured budgets."""

    def __str__(self) -> str:
        names = f"{self.first} and {self.second}"
        if self.quantiles is None or self.share_without > 0.5:
            return f"{names}: none in range ({self.share_without:.0%} of bootstrap draws have no crossing)"
        low, middle, high = self.quantiles
        where = "interpolated" if self.inside else "extrapolated"
        span = f"{middle:.2e} FLOPs, 95 % interval {low:.1e} to {high:.1e}, {where}"
        return f"{names}: {span}; {self.share_without:.0%} of draws have none"


def crossing(a: ScalingFit, b: ScalingFit) -> Crossing:
    """The training FLOPs at which two fitted methods are equal, within the measured budgets and a decade around them.

    Raises:
        ValueError: when one of them has no fit.
    """
    if a.law is None or b.law is None:
        raise ValueError(f"{a.method if a.law is None else b.method} has no fit to cross with")
    both = np.concatenate([a.compute, b.compute])
    low, high = math.log10(both.min()) - EXTRAPOLATION_DECADES, math.log10(both.max()) + EXTRAPOLATION_DECADES
    points = np.linspace(low, high, round(50 * (high - low)))
    curves_a, curves_b = a.curves(10.0**points), b.curves(10.0**points)
    pairs = max(len(curves_a), len(curves_b))
    difference = np.log(np.resize(curves_a, (pairs, len(points)))) - np.log(np.resize(curves_b, (pairs, len(points))))
    roots = []
    for gap in difference:
        changes = np.flatnonzero(np.diff(np.sign(gap)) != 0)
        if len(changes):  # the laws are smooth: a straight line between points a fiftieth of a decade apart is exact to 1e-3
            left = changes[0]
            roots.append(points[left] - gap[left] * (points[left + 1] - points[left]) / (gap[left + 1] - gap[left]))
    share = 1 - len(roots) / len(difference)
    if not roots:
        return Crossing(a.method, b.method, share, None, False)
    values = 10.0 ** np.percentile(roots, LEVELS)
    inside = bool(both.min() <= values[1] <= both.max())
    return Crossing(a.method, b.method, share, (float(values[0]), float(values[1]), float(values[2])), inside)


@dataclass(frozen=True, slots=True)
class IsoFlop:
    """The best size at one budget, from a parabola in log N of the log metric, or the reason why there is none."""

    budget: float
    num_params: float = math.nan
    value: float = math.nan
    missing: str = ""


def isoflop_minimum(budget: float, num_params: Array, values: Array) -> IsoFlop:
    """Fit the parabola to runs (n,) of one budget; refuse a wrong curvature and a minimum at the edge."""
    usable = np.isfinite(values) & (values > 0)
    x, y = np.log(num_params[usable].astype(np.float64)), np.log(values[usable].astype(np.float64))
    sizes = np.unique(x)
    if len(sizes) < 4:
        return IsoFlop(budget, missing=f"a parabola needs 4 sizes; there are {len(sizes)}")
    center = sizes.mean()
    curvature, slope, constant = np.polyfit(x - center, y, 2)
    if curvature <= 0:
        return IsoFlop(budget, missing="the parabola opens downward: no minimum among these sizes")
    vertex = -slope / (2 * curvature) + center
    if not sizes[1] <= vertex <= sizes[-2]:
        return IsoFlop(budget, missing="the minimum lies at the edge of the sizes or outside them")
    return IsoFlop(budget, float(np.exp(vertex)), float(np.exp(constant - slope**2 / (4 * curvature))))
