"""The best size at a budget, and how it grows with the budget: parabolas in the logarithm of the size.

Letters: n runs, R draws, B budgets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.intervals import LEVELS, Interval
from bench.analysis.laws import Array
from bench.analysis.noise import residual_noise
from bench.analysis.scaling import NUM_DRAWS, not_positive

MIN_SIZES = 4
MIN_PATH_BUDGETS = 3
"""Below these nothing is left to see whether a parabola, or the line of its minima, fits."""
DOUBT = 2.5
"""Percent of drawn curvatures that may be at or below 0: where sizes have no effect at most 2.5 % of tables give a minimum."""


@dataclass(frozen=True, slots=True)
class IsoFlop:
    """The best size at one budget, from a parabola in log N of the log metric, or the reason why there is none."""

    budget: float
    num_params: float = math.nan
    value: float = math.nan
    missing: str = ""
    interval: Interval | None = None
    """Of the best size, parameters."""


@dataclass(frozen=True, slots=True)
class OptimalPath:
    """How the best size, or the images it sees, grows with compute: scale * C^exponent, from all budgets together."""

    what: str
    """num_params or images_seen."""
    missing: str = ""
    exponent: Interval | None = None
    draws: Array | None = None
    """(R, 2): logarithm of the scale, and the exponent."""

    def at(self, compute: float) -> Interval:
        """The best value at a compute."""
        assert self.draws is not None
        return Interval.of(np.exp(self.draws[:, 0] + self.draws[:, 1] * math.log(compute)))


def isoflop_minimum(budget: float, num_params: Array, values: Array, *, seed: int = 0, num_draws: int = NUM_DRAWS) -> IsoFlop:
    """Fit the parabola to runs (n,) of one budget.

    There is a minimum only where the curvature is significantly above 0 (by its draws, whose noise is that of the residuals, so
    that seeds and misfit both count) and the vertex lies inside the sizes but one at each end; its interval is that of the drawn
    vertices.
    """
    usable = np.isfinite(values)
    refused = not_positive(values[usable])
    if refused:
        return IsoFlop(budget, missing=refused)
    x, y = np.log(num_params[usable].astype(np.float64)), np.log(values[usable].astype(np.float64))
    sizes = np.unique(x)
    if len(sizes) < MIN_SIZES:
        return IsoFlop(budget, missing=f"a parabola needs {MIN_SIZES} sizes; there are {len(sizes)}")
    center = sizes.mean()
    z = x - center
    design = np.stack([np.ones_like(z), z, z**2], axis=1)
    constant, slope, curvature = (float(v) for v in np.linalg.lstsq(design, y)[0])
    if curvature <= 0:
        return IsoFlop(budget, missing="the parabola opens downward: no minimum among these sizes")
    generator = np.random.default_rng(seed)
    draws = (
        residual_noise(np.full(len(y), budget), y, design, np.arange(len(y))).draw(generator, num_draws).coefficients(generator)
    )
    if np.percentile(draws[:, 2], DOUBT) <= 0:
        return IsoFlop(budget, missing="the curvature is within the noise: no minimum among these sizes")
    vertex = -slope / (2 * curvature) + center
    if not sizes[1] <= vertex <= sizes[-2]:
        return IsoFlop(budget, missing="the minimum lies at the edge of the sizes or outside them")
    low, _, high = np.exp(np.percentile(_vertices(draws[:, 1], draws[:, 2]), LEVELS) + center)
    best, least = math.exp(vertex), math.exp(constant - slope**2 / (4 * curvature))
    return IsoFlop(budget, best, least, interval=Interval(float(low), best, float(high)))


def _vertices(slopes: Array, curvatures: Array) -> Array:
    """Where drawn parabolas (R,) have their minimum; at minus or plus infinity for those that have none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(curvatures > 0, -slopes / (2 * curvatures), np.where(slopes > 0, -50.0, 50.0))


def optimal_path(
    what: str, budgets: Array, sizes: Array, values: Array, ladders: NDArray[Any], *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> OptimalPath:
    """One parabola for the runs (n,) of all budgets, whose vertex moves as a power of compute.

    log value = level(budget) + c (log size - log best(budget))^2 with log best = a + g log budget is linear in its coefficients,
    so that budgets whose own minimum is at an edge count too. Refused where the curvature is within the noise.
    """
    usable = np.isfinite(values) & np.isfinite(sizes)
    budgets, sizes, values, ladders = budgets[usable], sizes[usable], values[usable], ladders[usable]
    refused = not_positive(values)
    if refused:
        return OptimalPath(what, missing=refused)
    counts = {budget: len(np.unique(sizes[budgets == budget])) for budget in np.unique(budgets)}
    shaped = np.isin(budgets, [budget for budget, count in counts.items() if count >= 3])  # two sizes have no shape
    names, level = np.unique(budgets[shaped], return_inverse=True)
    if len(names) < MIN_PATH_BUDGETS or max(counts.values()) < MIN_SIZES:
        wanted = f"{MIN_PATH_BUDGETS} budgets with 3 sizes or more each, {MIN_SIZES} somewhere"
        return OptimalPath(what, missing=f"a path needs {wanted}; there are {len(names)} of {len(counts)}")
    budgets, sizes, values, ladders = budgets[shaped], sizes[shaped], values[shaped], ladders[shaped]
    log_c, x = np.log(budgets), np.log(sizes)
    middle_c, middle_x = log_c.mean(), x.mean()
    x, z = x - middle_x, log_c - middle_c
    design = np.concatenate([(level[:, None] == np.arange(len(names))).astype(float), np.stack([x, x * z, x**2], axis=1)], axis=1)
    # the levels of the budgets absorb the vertex's own height, and its part that moves with compute
    generator = np.random.default_rng(seed)
    draws = residual_noise(budgets, np.log(values), design, ladders).draw(generator, num_draws).coefficients(generator)
    if np.percentile(draws[:, -1], DOUBT) <= 0:
        return OptimalPath(what, missing="the curvature over all budgets is within the noise: no best size")
    kept = draws[draws[:, -1] > 0]
    exponents = -kept[:, -2] / (2 * kept[:, -1])
    scales = -kept[:, -3] / (2 * kept[:, -1]) + middle_x - exponents * middle_c
    return OptimalPath(what, "", Interval.of(exponents), np.stack([scales, exponents], axis=1))
