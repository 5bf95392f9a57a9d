"""Scaling laws with honest intervals: power laws, the (N, D) surface, isoFLOP minima, crossings. Tables and files are elsewhere.

Letters: n observations, K power terms, P parameters, S starts, R bootstrap draws, C training FLOPs, N parameters, D images.

Every law is a sum of positive terms, exp(offset) + sum_k exp(intercept_k - exponent_k * log x_k), fitted to the logarithm of a
quantity that is better when smaller, by the sum of Huber losses (Hoffmann et al. 2022, appendix D.3) with an analytic gradient
and many starts; a loss averaged instead of summed, with default tolerances, stops far from the optimum (Besiroglu et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize

Array = NDArray[np.float64]

HUBER_DELTA = 1e-3
"""Hoffmann et al. 2022, appendix D.3, in log units."""
MIN_BUDGETS, MIN_DECADES, MIN_SEEDS = 6, 2.5, 3
"""Below these a wrong form fits tightly (a pure law on data with an offset: exponent .17 +- .01 for a true .25, measured on
simulated sweeps of 6 budgets and 2 % noise), so no exponent is given."""
NUM_STARTS = 64
NUM_DRAWS = 1000
LEVELS = (2.5, 50.0, 97.5)
EXTRAPOLATION_DECADES = 1.0
"""How far outside the measured budgets a crossing is looked for."""


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted sum of power terms."""

    intercepts: Array  # (K,)
    exponents: Array  # (K,)
    offset: float | None
    """Natural logarithm of the additive constant; None where the law has none."""
    objective: float
    """Sum of Huber losses at the optimum."""

    def __call__(self, *x: Array | float) -> Array:
        """Values at x_1 .. x_K, each (n,)."""
        logs = np.log(np.stack([np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in x], axis=1))
        return np.exp(_log_prediction(self.parameters, logs, self.offset is not None)[0])

    @property
    def parameters(self) -> Array:
        """(P,): intercepts, exponents, and the offset where there is one."""
        return np.concatenate([self.intercepts, self.exponents, [] if self.offset is None else [self.offset]])

    @classmethod
    def of(cls, parameters: Array, num_terms: int, objective: float) -> Law:
        """Inverse of `parameters`."""
        k = num_terms
        offset = float(parameters[2 * k]) if len(parameters) > 2 * k else None
        return cls(parameters[:k].copy(), parameters[k : 2 * k].copy(), offset, objective)


def _log_prediction(p: Array, logs: Array, offset: bool) -> tuple[Array, Array]:
    """Logarithm of the law (n,) and each term's share (n, K or K + 1), for parameters (P,) and log features (n, K)."""
    k = logs.shape[1]
    terms = p[:k] - p[k : 2 * k] * logs
    if offset:
        terms = np.concatenate([terms, np.full((len(logs), 1), p[2 * k])], axis=1)
    largest = terms.max(1, keepdims=True)
    powers = np.exp(terms - largest)
    total = powers.sum(1, keepdims=True)
    return (largest + np.log(total))[:, 0], powers / total


def _objective(p: Array, logs: Array, log_y: Array, offset: bool, delta: float, scale: float) -> tuple[float, Array]:
    """Scaled sum of Huber losses of the log residuals, and its gradient (P,)."""
    k = logs.shape[1]
    prediction, shares = _log_prediction(p, logs, offset)
    residual = prediction - log_y
    size = np.abs(residual)
    loss = np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta)).sum()
    slope = np.clip(residual, -delta, delta)[:, None] * shares
    gradient = [slope[:, :k].sum(0), -(slope[:, :k] * logs).sum(0)]
    if offset:
        gradient.append(slope[:, k:].sum(0))
    return scale * float(loss), scale * np.concatenate(gradient)


def fit_law(
    x: Sequence[Array],
    y: Array,
    *,
    offset: bool,
    delta: float = HUBER_DELTA,
    starts: Sequence[Array] | None = None,
    num_starts: int = NUM_STARTS,
) -> Law:
    """Fit a law to y (n,) with one power term for each feature in x, all positive.

    Args:
        starts: parameter vectors to start from instead of a seeded grid.

    Raises:
        ValueError: for fewer observations than parameters, or a value that is not positive.
    """
    logs = np.log(np.stack(x, axis=1)) if all(np.all(v > 0) for v in x) and np.all(y > 0) else None
    if logs is None or not np.isfinite(y).all():
        raise ValueError("a power law needs positive, finite values; drop the others and say so")
    n, k = logs.shape
    num = 2 * k + offset
    if n < num:
        raise ValueError(f"{n} observations cannot fix {num} parameters; add budgets")
    center, log_y = logs.mean(0), np.log(y)
    centered = logs - center
    if starts is None:
        generator = np.random.default_rng(0)
        spread = log_y.max() - log_y.min() + 1.0
        found = np.empty((num_starts, num))
        found[:, :k] = log_y.mean() - math.log(k + offset) + generator.uniform(-spread, spread, (num_starts, k))
        found[:, k : 2 * k] = generator.uniform(0.02, 1.0, (num_starts, k))
        if offset:
            found[:, 2 * k] = log_y.min() - generator.exponential(0.7, num_starts)
        starts = list(found)
    else:
        starts = [np.concatenate([s[:k] - s[k : 2 * k] * center, s[k:]]) for s in starts]
    bounds = [(None, None)] * (2 * k) + ([(None, float(log_y.min()))] if offset else [])
    scale = 1.0 / (delta * delta * n)
    best: tuple[float, Array] | None = None
    for start in starts:
        done = minimize(
            _objective,
            start,
            (centered, log_y, offset, delta, scale),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 2000, "maxfun": 4000},
        )
        if best is None or done.fun < best[0]:
            best = float(done.fun), done.x
    assert best is not None
    p = best[1].copy()
    p[:k] += p[k : 2 * k] * center
    return Law.of(p, k, best[0] / scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingFit:
    """A metric against training FLOPs for one method, or the reason why there is none."""

    method: str
    missing: str = ""
    """What is missing for a fit, as a sentence; empty when there is one."""
    law: Law | None = None
    other: Law | None = None
    """The form that was not chosen: with an offset where `law` has none, and the other way round."""
    draws: Array = field(default_factory=lambda: np.empty((0, 0)))
    """(R, P) bootstrap parameters."""
    held_out_error: float = math.nan
    """Relative error at the top budget of the same form fitted without it."""
    seed_noise: float = math.nan
    """Standard deviation between seeds of the metric's logarithm, pooled over budgets."""
    compute: Array = field(default_factory=lambda: np.empty(0))
    residuals: Array = field(default_factory=lambda: np.empty(0))
    """Logarithm of observed over fitted, per run."""

    @property
    def extrapolates(self) -> bool:
        """Whether the held-out error is below twice the seed noise."""
        return bool(self.held_out_error < 2 * self.seed_noise)

    @property
    def exponent(self) -> tuple[float, float, float]:
        """2.5 %, fitted value and 97.5 % of the exponent."""
        assert self.law is not None
        low, _, high = np.percentile(self.draws[:, 1], LEVELS)
        return float(low), float(self.law.exponents[0]), float(high)

    def band(self, compute: Array) -> Array:
        """(3, m): 2.5 %, 50 % and 97.5 % of the bootstrap curves at compute (m,)."""
        return np.percentile(self.curves(compute), LEVELS, axis=0)

    def curves(self, compute: Array) -> Array:
        """(R, m) bootstrap curves."""
        log_c = np.log(np.asarray(compute, dtype=np.float64))
        curves = self.draws[:, :1] - self.draws[:, 1:2] * log_c
        if self.draws.shape[1] > 2:
            curves = np.logaddexp(curves, self.draws[:, 2:3])
        return np.exp(curves)


def lacking(compute: Array) -> str:
    """The sentence that says what is missing for an exponent, for the training FLOPs of all runs; empty when nothing is."""
    budgets, seeds = np.unique(compute, return_counts=True)
    if len(budgets) == 0:
        return "no finished run"
    decades = math.log10(budgets[-1] / budgets[0])
    needs = []
    if len(budgets) < MIN_BUDGETS:
        needs.append(f"{MIN_BUDGETS} budgets (there are {len(budgets)})")
    if decades < MIN_DECADES - 1e-9:
        needs.append(f"{MIN_DECADES} decades of budgets (there are {decades:.2g})")
    if seeds.min() < MIN_SEEDS:
        needs.append(f"{MIN_SEEDS} seeds at every budget (the fewest are {seeds.min()})")
    return f"no exponent: a fit needs {' and '.join(needs)}" if needs else ""


def fit_scaling(
    method: str, compute: Array, values: Array, *, seed: int = 0, num_draws: int = NUM_DRAWS, check: bool = True
) -> ScalingFit:
    """Fit both forms to a method's runs (n,) on its per-budget best size, choose one, and bootstrap it over runs.

    The form is chosen by the error at the top budget when fitted without it, then by AICc where that error is within seed noise
    for both. A draw resamples the runs' log residuals, scaled by sqrt(n / (n - P)) so that as many seeds as there are give
    intervals of the nominal coverage (Davison & Hinkley 1997, section 6.2), and refits from the optimum.

    Args:
        check: refuse an exponent when budgets, decades or seeds are too few.
    """
    compute, values = np.asarray(compute, dtype=np.float64), np.asarray(values, dtype=np.float64)
    usable = np.isfinite(values) & (values > 0)
    compute, values = compute[usable], values[usable]
    missing = lacking(compute)
    if (check and missing) or len(values) < 4:
        return ScalingFit(method=method, missing=missing or "no exponent: fewer than 4 usable runs")
    noise = seed_noise(compute, np.log(values))
    candidates = {offset: fit_law([compute], values, offset=offset) for offset in (False, True)}
    held = {offset: held_out_error(compute, values, offset) for offset in candidates}
    offset = _choose(candidates, held, noise, compute, values)
    law = candidates[offset]
    residuals = np.log(values / law(compute))
    num_parameters = len(law.parameters)
    inflated = (residuals - residuals.mean()) * math.sqrt(len(values) / (len(values) - num_parameters))
    generator, fitted = np.random.default_rng(seed), law(compute)
    draws = np.empty((num_draws, num_parameters))
    for index in range(num_draws):
        drawn = fitted * np.exp(generator.choice(inflated, len(values)))
        draws[index] = fit_law([compute], drawn, offset=offset, starts=[law.parameters]).parameters
    return ScalingFit(
        method=method,
        law=law,
        other=candidates[not offset],
        draws=draws,
        held_out_error=held[offset],
        seed_noise=noise,
        compute=compute,
        residuals=residuals,
    )


def _choose(candidates: dict[bool, Law], held: dict[bool, float], noise: float, compute: Array, values: Array) -> bool:
    """Whether the law has an offset."""
    if max(held.values()) > 2 * noise:
        return held[True] < held[False]

    def information(offset: bool) -> float:
        """AICc of log-normal residuals."""
        residuals = np.log(values / candidates[offset](compute))
        n, k = len(values), 3 + offset
        return float(n * np.log((residuals**2).mean()) + 2 * k + 2 * k * (k + 1) / max(n - k - 1, 1))

    return information(True) < information(False)


def held_out_error(compute: Array, values: Array, offset: bool) -> float:
    """Relative error of the geometric mean at the top budget, for a fit without it."""
    top = compute == compute.max()
    if len(np.unique(compute[~top])) < 3:
        return math.nan
    law = fit_law([compute[~top]], values[~top], offset=offset, num_starts=16)
    return float(abs(law(compute.max())[0] / np.exp(np.log(values[top]).mean()) - 1))


def seed_noise(compute: Array, log_values: Array) -> float:
    """Standard deviation between seeds at one budget, pooled over the budgets with more than one; NaN without any."""
    squares, freedom = 0.0, 0
    for budget in np.unique(compute):
        cell = log_values[compute == budget]
        squares += float(((cell - cell.mean()) ** 2).sum())
        freedom += len(cell) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


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
        return f"{names}: {middle:.2e} FLOPs, 95 % interval {low:.1e} to {high:.1e}, {where}; {self.share_without:.0%} of draws have none"


def crossing(a: ScalingFit, b: ScalingFit) -> Crossing:
    """The training FLOPs at which two fitted methods are equal, within the measured budgets and a decade around them.

    Raises:
        ValueError: when one of them has no fit.
    """
    if a.law is None or b.law is None:
        raise ValueError(f"{a.method if a.law is None else b.method} has no fit to cross with")
    both = np.concatenate([a.compute, b.compute])
    low, high = math.log10(both.min()) - EXTRAPOLATION_DECADES, math.log10(both.max()) + EXTRAPOLATION_DECADES
    points = np.linspace(low, high, 121)
    difference = np.log(a.curves(10.0**points)) - np.log(b.curves(10.0**points))
    roots = []
    for index in range(len(difference)):
        changes = np.flatnonzero(np.diff(np.sign(difference[index])) != 0)
        if len(changes):
            left, right = points[changes[0]], points[changes[0] + 1]
            roots.append(_root(a.draws[index], b.draws[index], left, right))
    share = 1 - len(roots) / len(difference)
    if not roots:
        return Crossing(a.method, b.method, share, None, False)
    values = 10.0 ** np.percentile(roots, LEVELS)
    inside = bool(both.min() <= values[1] <= both.max())
    return Crossing(a.method, b.method, share, (float(values[0]), float(values[1]), float(values[2])), inside)


def _root(a: Array, b: Array, left: float, right: float) -> float:
    """log10 C in [left, right] at which two laws (P,) are equal."""

    def gap(log_c: float) -> float:
        logs = np.array([[log_c * math.log(10)]])
        return float(_log_prediction(a, logs, len(a) > 2)[0][0] - _log_prediction(b, logs, len(b) > 2)[0][0])

    return left if gap(left) == 0 else float(brentq(gap, left, right))


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


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    low: float
    value: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies on one side of 0, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of an increasing function of the estimate."""
        return Interval(function(self.low), function(self.value), function(self.high))
