"""Scaling fits with intervals: refitted to resampled seeds, with what keeps a table from one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from bench.analysis.laws import HUBER_DELTA, HUBER_EFFICIENT, Array, Law, fit_law, refit

MIN_BUDGETS, MIN_DECADES, MIN_SEEDS = 6, 2.5, 3
"""Below these a wrong form fits tightly (a pure law on data with an offset: exponent .17 +- .01 for a true .25, measured on
simulated sweeps of 6 budgets and 2 % noise), so no exponent is given."""
NUM_DRAWS = 1000
LEVELS = (2.5, 50.0, 97.5)
EXTRAPOLATION_DECADES = 1.0
"""How far outside the measured budgets a crossing is looked for."""


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
    delta = huber_delta(noise)
    law, pure = (fit_law([compute], values, offset=offset, delta=delta) for offset in (True, False))
    drawn = resampled_seeds(compute, values, seed, num_draws)
    prefers_offset = information_matrix(law, compute, values) < information_matrix(pure, compute, values)
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


def huber_delta(noise: float) -> float:
    """Huber's threshold for a standard deviation between seeds."""
    return max(HUBER_DELTA, HUBER_EFFICIENT * noise)


def resampled_seeds(cells: Array, values: Array, seed: int, num_draws: int) -> Array:
    """Bootstrap data sets (R, n): each cell's mean logarithm and a resampled deviation between seeds."""
    means, deviations = size_cells(cells, np.log(values))
    drawn = np.random.default_rng(seed).choice(deviations, (num_draws, len(values)))
    return np.asarray(np.exp(means + drawn))


def information_matrix(law: Law, compute: Array, values: Array) -> float:
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


def size_cells(compute: Array, log_values: Array) -> tuple[Array, Array]:
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
