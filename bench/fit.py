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
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student

Array = NDArray[np.float64]

HUBER_DELTA = 1e-3
"""Hoffmann et al. 2022, appendix D.3, in log units."""
MIN_BUDGETS, MIN_DECADES, MIN_SEEDS = 6, 2.5, 3
"""Below these a wrong form fits tightly (a pure law on data with an offset: exponent .17 +- .01 for a true .25, measured on
simulated sweeps of 6 budgets and 2 % noise), so no exponent is given."""
HUBER_EFFICIENT = 1.345
"""Times the noise's standard deviation: 95 % efficient for Gaussian noise (Huber 1981, section 4.5)."""
MIN_SIZES = 4
"""Of a surface: five parameters, two of them exponents, need sizes off the frontier."""
NUM_STARTS = 64
NUM_POLISHED = 4
"""Of the starts, refined by L-BFGS-B to the last digits."""
NEWTON_ITERATIONS = 60
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
        """Inverse of `parameters` (P,)."""
        k = num_terms
        offset = float(parameters[2 * k]) if len(parameters) > 2 * k else None
        return cls(parameters[:k].copy(), parameters[k : 2 * k].copy(), offset, objective)


def _log_prediction(p: Array, logs: Array, offset: bool) -> tuple[Array, Array]:
    """Logarithm of the law (..., n), shares of its terms (..., n, K or K + 1); parameters (..., P), log features (n, K)."""
    k = logs.shape[1]
    terms = p[..., None, :k] - p[..., None, k : 2 * k] * logs
    if offset:
        terms = np.concatenate([terms, np.broadcast_to(p[..., None, 2 * k :], (*terms.shape[:-1], 1))], axis=-1)
    largest = terms.max(-1, keepdims=True)
    powers = np.exp(terms - largest)
    total = powers.sum(-1, keepdims=True)
    return (largest + np.log(total))[..., 0], powers / total


def _huber(residual: Array, delta: float) -> Array:
    """Huber's loss, element by element."""
    size = np.abs(residual)
    return np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))


def _objective(p: Array, logs: Array, log_y: Array, offset: bool, delta: float, scale: float) -> tuple[float, Array]:
    """Scaled sum of Huber losses of the log residuals, and its gradient (P,)."""
    k = logs.shape[1]
    prediction, shares = _log_prediction(p, logs, offset)
    residual = prediction - log_y
    slope = np.clip(residual, -delta, delta)[:, None] * shares
    gradient = [slope[:, :k].sum(0), -(slope[:, :k] * logs).sum(0)]
    if offset:
        gradient.append(slope[:, k:].sum(0))
    return scale * float(_huber(residual, delta).sum()), scale * np.concatenate(gradient)


def _damped_newton(
    starts: Array, logs: Array, log_y: Array, offset: bool, delta: float, iterations: int = NEWTON_ITERATIONS
) -> tuple[Array, Array]:
    """Minimize the Huber losses of many problems at once by Levenberg-Marquardt steps with Huber's weights.

    Args:
        starts: (S, P) parameters; problem s fits log_y[s] from starts[s].
        logs: (n, K) features; log_y: (S, n).

    Returns:
        parameters (S, P) and sums of Huber losses (S,).
    """
    k = logs.shape[1]
    ceiling = log_y.min(1)

    def evaluate(p: Array) -> tuple[Array, Array, Array]:
        prediction, shares = _log_prediction(p, logs, offset)
        residual = prediction - log_y
        return residual, shares, _huber(residual, delta).sum(1)

    p = starts.copy()
    residual, shares, loss = evaluate(p)
    damping = np.full(len(p), 1e-2)
    diagonal = np.arange(p.shape[1])
    for _ in range(iterations):
        jacobian = np.concatenate([shares[:, :, :k], -shares[:, :, :k] * logs, shares[:, :, k:]], axis=2)
        weighted = jacobian * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))[:, :, None]
        gradient = np.einsum("snp,sn->sp", weighted, residual)
        curvature = np.einsum("snp,snq->spq", weighted, jacobian)
        curvature[:, diagonal, diagonal] *= 1 + damping[:, None]
        curvature[:, diagonal, diagonal] += 1e-14
        trial = p - np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        if offset:
            trial[:, 2 * k] = np.minimum(trial[:, 2 * k], ceiling)
        found = evaluate(trial)
        better = found[2] < loss
        settled = (np.abs(loss - found[2]) <= 1e-10 * loss) | (damping > 1e10)
        p[better], residual[better], shares[better] = trial[better], found[0][better], found[1][better]
        loss = np.where(better, found[2], loss)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e12)
        if settled.all():
            break
    return p, loss


def fit_law(x: Sequence[Array], y: Array, *, offset: bool, delta: float = HUBER_DELTA, num_starts: int = NUM_STARTS) -> Law:
    """Fit a law to y (n,) with one power term for each feature in x, all positive.

    Raises:
        ValueError: for fewer observations than parameters, or a value that is not positive.
    """
    if not all(np.all(v > 0) for v in (*x, y)) or not np.isfinite(y).all():
        raise ValueError("a power law needs positive, finite values; drop the others and say so")
    logs, log_y = np.log(np.stack(x, axis=1)), np.log(y)
    n, k = logs.shape
    num = 2 * k + offset
    if n < num:
        raise ValueError(f"{n} observations cannot fix {num} parameters; add budgets")
    center = logs.mean(0)
    generator = np.random.default_rng(0)
    spread = log_y.max() - log_y.min() + 1.0
    starts = np.empty((num_starts, num))
    starts[:, :k] = log_y.mean() - math.log(k + offset) + generator.uniform(-spread, spread, (num_starts, k))
    starts[:, k : 2 * k] = generator.uniform(0.02, 1.0, (num_starts, k))
    if offset:
        starts[:, 2 * k] = log_y.min() - generator.exponential(0.7, num_starts)
    found, losses = _damped_newton(starts, logs - center, np.tile(log_y, (num_starts, 1)), offset, delta)
    scale = 1.0 / (delta * delta * n)
    polished = [
        minimize(
            _objective,
            found[index],
            (logs - center, log_y, offset, delta, scale),
            jac=True,
            method="L-BFGS-B",
            bounds=[(None, None)] * (2 * k) + ([(None, float(log_y.min()))] if offset else []),
            options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 2000, "maxfun": 4000},
        )
        for index in np.argsort(losses)[:NUM_POLISHED]
    ]
    best = min(polished, key=lambda done: float(done.fun))
    p = best.x.copy()
    p[:k] += p[k : 2 * k] * center
    return Law.of(p, k, float(best.fun) / scale)


def refit(law: Law, x: Sequence[Array], y: Array, delta: float) -> Array:
    """Parameters (R, P) of the law's form fitted to many data sets y (R, n) at the same features, from the law's optimum."""
    logs, k = np.log(np.stack(x, axis=1)), len(law.exponents)
    center, start = logs.mean(0), law.parameters
    start[:k] -= start[k : 2 * k] * center
    found, _ = _damped_newton(np.tile(start, (len(y), 1)), logs - center, np.log(y), law.offset is not None, delta)
    found[:, :k] += found[:, k : 2 * k] * center
    return found


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

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.value, -self.low)

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of an increasing function of the estimate."""
        return Interval(function(self.low), function(self.value), function(self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingFit:
    """A metric against training FLOPs for one method, or the reason why there is none."""

    method: str
    missing: str = ""
    """What is missing for a fit, as a sentence; empty when there is one."""
    law: Law | None = None
    """With an offset: its interval contains the pure law where the offset is not needed, and not the other way round."""
    pure: Law | None = None
    """Without an offset."""
    draws: Array = field(default_factory=lambda: np.empty((0, 3)))
    """(R, 3) bootstrap parameters of `law`."""
    pure_draws: Array = field(default_factory=lambda: np.empty((0, 2)))
    """(R, 2) bootstrap parameters of `pure`, where the data prefer it; intervals then hold those of both forms."""
    prefers_offset: bool = True
    """Whether the corrected Akaike criterion of log-normal residuals prefers `law` to `pure`."""
    held_out_error: float = math.nan
    """Relative error of `law` at the top budget when fitted without it."""
    held_out_error_pure: float = math.nan
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
    def exponent(self) -> Interval:
        """Of `law`."""
        assert self.law is not None
        ends = np.array([np.percentile(d[:, 1], LEVELS) for d in (self.draws, self.pure_draws) if len(d)])
        return Interval(float(ends[:, 0].min()), float(self.law.exponents[0]), float(ends[:, 2].max()))

    @property
    def offset(self) -> Interval:
        """The metric that no compute reaches."""
        assert self.law is not None
        assert self.law.offset is not None
        low, _, high = np.exp(np.percentile(self.draws[:, 2], LEVELS))
        return Interval(float(low), math.exp(self.law.offset), float(high))

    def curves(self, compute: Array) -> Array:
        """(R, m) bootstrap curves at compute (m,), of both forms where both stand."""
        log_c = np.log(np.asarray(compute, dtype=np.float64))
        curves = np.logaddexp(self.draws[:, :1] - self.draws[:, 1:2] * log_c, self.draws[:, 2:3])
        pure = self.pure_draws[:, :1] - self.pure_draws[:, 1:2] * log_c
        return np.asarray(np.exp(np.concatenate([curves, pure])))

    def band(self, compute: Array) -> Array:
        """(3, m): 2.5 %, 50 % and 97.5 % of the bootstrap curves at compute (m,)."""
        band: Array = np.percentile(self.curves(compute), LEVELS, axis=0)
        return band


def lacking(compute: Array) -> str:
    """The sentence that says what is missing for an exponent, for the training FLOPs (n,) of all runs; empty when nothing is."""
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


def fit_scaling(method: str, compute: Array, values: Array, *, seed: int = 0, num_draws: int = NUM_DRAWS) -> ScalingFit:
    """Fit both forms to a method's runs (n,) on its per-budget best size, and bootstrap the one with an offset over runs.

    A draw adds to each budget's mean logarithm a resampled deviation between seeds, from all budgets together and scaled by
    sqrt(m / (m - 1)) for m seeds, so that few seeds do not look like little noise (Davison & Hinkley 1997, section 3.2); it
    then refits from the optimum. Simulated coverage of the 95 % intervals: tests/test_fit.py.
    """
    compute, values = np.asarray(compute, dtype=np.float64), np.asarray(values, dtype=np.float64)
    usable = np.isfinite(values) & (values > 0)
    compute, values = compute[usable], values[usable]
    missing = lacking(compute)
    if missing:
        return ScalingFit(method=method, missing=missing)
    noise = seed_noise(compute, np.log(values))
    delta = _delta(noise)
    law, pure = (fit_law([compute], values, offset=offset, delta=delta) for offset in (True, False))
    drawn = _resampled(compute, values, seed, num_draws)
    prefers_offset = _information(law, compute, values) < _information(pure, compute, values)
    return ScalingFit(
        method=method,
        law=law,
        pure=pure,
        draws=refit(law, [compute], drawn, delta),
        pure_draws=np.empty((0, 2)) if prefers_offset else refit(pure, [compute], drawn, delta),
        prefers_offset=prefers_offset,
        held_out_error=held_out_error(compute, values, delta, offset=True),
        held_out_error_pure=held_out_error(compute, values, delta, offset=False),
        seed_noise=noise,
        compute=compute,
        residuals=np.log(values / law(compute)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceFit:
    """A metric over parameters N and images D for one method, or the reason why there is none."""

    method: str
    missing: str = ""
    law: Law | None = None
    """offset + A / N^alpha + B / D^beta."""
    draws: Array = field(default_factory=lambda: np.empty((0, 5)))
    """(R, 5) bootstrap parameters."""

    def interval(self, function: Callable[[Array], Array]) -> Interval:
        """Of a function of parameters (R, 5), such as an exponent."""
        assert self.law is not None
        low, _, high = np.percentile(function(self.draws), LEVELS)
        return Interval(float(low), float(function(self.law.parameters[None])[0]), float(high))

    @property
    def allocation(self) -> Interval:
        """a = beta / (alpha + beta): the best N grows as C^a (Hoffmann et al. 2022, section 3.3)."""
        return self.interval(lambda p: p[:, 3] / (p[:, 2] + p[:, 3]))


def fit_surface(
    method: str, num_params: Array, images: Array, values: Array, *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> SurfaceFit:
    """Fit a method's runs (n,) of all sizes and budgets; draws resample deviations between seeds as `fit_scaling` does.

    It needs a grid off the frontier: MIN_SIZES sizes and budgets with MIN_SEEDS seeds each.
    """
    usable = np.isfinite(values) & (values > 0)
    num_params, images, values = num_params[usable].astype(float), images[usable].astype(float), values[usable]
    cells = np.unique(
        np.stack([num_params, np.round(np.log(images), 2)], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    sizes, seeds = len(np.unique(num_params)), cells[2].min() if len(values) else 0
    if len(cells[0]) < MIN_SIZES**2 or sizes < MIN_SIZES or seeds < MIN_SEEDS:
        found = f"there are {sizes} sizes, {len(cells[0])} cells and {seeds} seeds"
        return SurfaceFit(
            method=method,
            missing=f"no surface: a fit needs {MIN_SIZES} sizes, {MIN_SIZES**2} cells and {MIN_SEEDS} seeds each; {found}",
        )
    cell = cells[1].astype(float)
    delta = _delta(seed_noise(cell, np.log(values)))
    law = fit_law([num_params, images], values, offset=True, delta=delta)
    drawn = _resampled(cell, values, seed, num_draws)
    return SurfaceFit(method=method, law=law, draws=refit(law, [num_params, images], drawn, delta))


def _delta(noise: float) -> float:
    """Huber's threshold for a standard deviation between seeds."""
    return max(HUBER_DELTA, HUBER_EFFICIENT * noise)


def _resampled(cells: Array, values: Array, seed: int, num_draws: int) -> Array:
    """Bootstrap data sets (R, n): each cell's mean logarithm and a resampled deviation between seeds."""
    means, deviations = _cells(cells, np.log(values))
    drawn = np.random.default_rng(seed).choice(deviations, (num_draws, len(values)))
    return np.asarray(np.exp(means + drawn))


def _cells(compute: Array, log_values: Array) -> tuple[Array, Array]:
    """Per run its budget's mean (n,), and the scaled deviations from them of budgets with several seeds.

    They are widened by the ratio of Student's to the Gaussian 97.5 % quantile at their degrees of freedom: what resampling
    leaves out when the noise itself is estimated from few runs.
    """
    means, deviations, freedom = np.empty_like(log_values), [], 0
    for budget in np.unique(compute):
        rows = compute == budget
        count = int(rows.sum())
        means[rows] = log_values[rows].mean()
        if count > 1:
            deviations.append((log_values[rows] - means[rows]) * math.sqrt(count / (count - 1)))
            freedom += count - 1
    if not deviations:
        return means, np.zeros(1)
    widened: Array = np.concatenate(deviations) * (student.ppf(0.975, freedom) / norm.ppf(0.975))
    return means, widened


def _information(law: Law, compute: Array, values: Array) -> float:
    """Corrected Akaike criterion of log-normal residuals."""
    residuals = np.log(values / law(compute))
    n, k = len(values), len(law.parameters) + 1
    return float(n * np.log((residuals**2).mean()) + 2 * k + 2 * k * (k + 1) / max(n - k - 1, 1))


def held_out_error(compute: Array, values: Array, delta: float, *, offset: bool) -> float:
    """Relative error of the geometric mean at the top budget, for a fit to values (n,) without it."""
    top = compute == compute.max()
    if len(np.unique(compute[~top])) < 3:
        return math.nan
    law = fit_law([compute[~top]], values[~top], offset=offset, delta=delta, num_starts=16)
    return float(abs(law(compute.max())[0] / np.exp(np.log(values[top]).mean()) - 1))


def seed_noise(compute: Array, log_values: Array) -> float:
    """Standard deviation of values (n,) between seeds at one budget, pooled over budgets with more than one; else NaN."""
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
