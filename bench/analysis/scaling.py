"""Scaling fits with intervals: refitted to redrawn seed ladders, with what keeps a table from one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.analysis.intervals import LEVELS
from bench.analysis.intervals import Interval as Interval
from bench.analysis.laws import LEAST_SQUARES, Array, Law, fit_law, refit
from bench.analysis.noise import Indices, NoiseDraws, SeedNoise, cell_means, seed_noise
from bench.progress import format_number

Mask = NDArray[np.bool_]
MIN_BUDGETS, MIN_DECADES, MIN_SEEDS = 6, 2.5, 3
"""Below these a wrong form fits tightly (a pure law on data with an offset: exponent .17 +- .01 for a true .25, measured on
simulated sweeps of 6 budgets and 2 % noise), so no exponent is given."""
NUM_DRAWS = 1000
SUBSTANTIAL_SUPPORT = 2.0
"""Akaike criterion within which of the better form the other one still stands (Burnham & Anderson 2002, section 2.6)."""
EXTRAPOLATION_DECADES = 1.0
"""How far outside the measured budgets a crossing is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingFit:
    """A metric against training FLOPs for one method, or the reason why there is none."""

    method: str
    missing: str = ""
    """What is missing for a fit, as a sentence; empty when there is one."""
    set_aside: str = ""
    """Which budgets the fit leaves out, as a sentence; empty when it has all."""
    law: Law | None = None
    """With an offset: its interval contains the pure law where the offset is not needed, and not the other way round."""
    pure: Law | None = None
    """Without an offset."""
    draws: Array = field(default_factory=lambda: np.empty((0, 3)))
    """(R, 3) parameters of `law`, refitted to drawn ladders."""
    pure_draws: Array = field(default_factory=lambda: np.empty((0, 2)))
    """(R, 2) parameters of `pure`, unless the data speak against it; intervals then hold those of both forms."""
    prefers_offset: bool = True
    """Whether the corrected Akaike criterion of log-normal residuals prefers `law` to `pure`."""
    floor: Interval | None = None
    """The measured floor of the metric; None where the table has none."""
    floored: Law | None = None
    """With the floor and its error as a prior on the offset; None where no floor was measured."""
    floored_draws: Array = field(default_factory=lambda: np.empty((0, 3)))
    """(R, 3) parameters of `floored`, the floor drawn too."""
    held_out_error: float = math.nan
    """Relative error of `law` at the top budget when fitted without it."""
    held_out_error_pure: float = math.nan
    seed_noise: float = math.nan
    """Standard deviation between seeds of the metric's logarithm, pooled over budgets."""
    noise_draws: NoiseDraws | None = None
    """How it changes with the budget and how far rungs of one trunk share it: the draws behind `draws`."""
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
    def floored_exponent(self) -> Interval | None:
        """Of `floored`."""
        if self.floored is None:
            return None
        low, _, high = np.percentile(self.floored_draws[:, 1], LEVELS)
        return Interval(float(low), float(self.floored.exponents[0]), float(high))

    @property
    def offset(self) -> Interval:
        """The metric that no compute reaches."""
        assert self.law is not None
        assert self.law.offset is not None
        low, _, high = np.exp(np.percentile(self.draws[:, 2], LEVELS))
        return Interval(float(low), math.exp(self.law.offset), float(high))

    def curves(self, compute: Array) -> Array:
        """(R, m) drawn curves at compute (m,), of both forms where both stand."""
        log_c = np.log(np.asarray(compute, dtype=np.float64))
        curves = np.logaddexp(self.draws[:, :1] - self.draws[:, 1:2] * log_c, self.draws[:, 2:3])
        pure = self.pure_draws[:, :1] - self.pure_draws[:, 1:2] * log_c
        with np.errstate(over="ignore"):  # far outside the data a drawn curve may be infinite
            return np.asarray(np.exp(np.concatenate([curves, pure])))

    def band(self, compute: Array) -> Array:
        """(3, m): 2.5 %, 50 % and 97.5 % of the drawn curves at compute (m,)."""
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


def well_seeded(cells: Indices, suffices: Callable[[Mask], bool]) -> Mask:
    """Which runs (n,) lie in cells (n,) with MIN_SEEDS seeds; all of them where these do not suffice for a fit."""
    kept = np.bincount(cells)[cells] >= MIN_SEEDS
    return kept if suffices(kept) else np.ones_like(kept)


def not_positive(values: Array) -> str:
    """The sentence that refuses values (n,) of which some have no logarithm; empty when all have one."""
    bad = int((values <= 0).sum())
    if not bad:
        return ""
    return (
        f"no fit: {bad} of {len(values)} values are at or below 0, where this estimator is as often as above; a law without them "
        "would rest on the worst runs alone"
    )


def fit_scaling(
    method: str,
    compute: Array,
    values: Array,
    seeds: Array,
    *,
    floor: Interval | None = None,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> ScalingFit:
    """Fit both forms to a method's runs (n,) on its per-budget best size: geometric means over seeds, weighted by their noise.

    A draw adds to each mean the noise of newly drawn seed ladders, all rungs of a seed together, whose size at each budget is
    itself drawn (`bench.analysis.noise`); it then refits from the optimum. Coverage of the 95 % intervals over simulated sweeps:
    tests/test_coverage.py.

    Args:
        compute: training FLOPs (n,).
        values: a quantity that falls as quality grows (n,).
        seeds: training seeds (n,); rungs of one seed share a trunk.
        floor: the measured value that no compute passes, with its 95 % interval.
    """
    compute, values = np.asarray(compute, dtype=np.float64), np.asarray(values, dtype=np.float64)
    usable = np.isfinite(values)
    compute, values, seeds = compute[usable], values[usable], np.asarray(seeds)[usable]
    kept = well_seeded(np.unique(compute, return_inverse=True)[1], lambda runs: not lacking(compute[runs]))
    thin = ", ".join(format_number(budget) for budget in np.unique(compute[~kept]))
    set_aside = f"the fit leaves out budgets with fewer than {MIN_SEEDS} seeds at the best size: {thin}" if thin else ""
    compute, values, seeds = compute[kept], values[kept], seeds[kept]
    missing = lacking(compute) or not_positive(values)
    if missing:
        return ScalingFit(method=method, missing=missing)
    budgets, cells = np.unique(compute, return_inverse=True)
    log_values = np.log(values)
    noise = seed_noise(compute, log_values, cells, seeds)
    means, weights = np.exp(cell_means(log_values, cells)), np.sqrt(np.bincount(cells)) / noise.deviation(budgets)
    law, pure = (fit_law([budgets], means, offset=offset, delta=LEAST_SQUARES, weights=weights) for offset in (True, False))
    generator = np.random.default_rng([seed, *method.encode()])  # two methods that meet must not share their draws
    noise_draws = noise.draw(generator, num_draws)
    drawn = means * np.exp(misfit(law, len(budgets)) * cell_means(noise_draws.runs(generator), cells))
    support = information(pure, compute, values, noise) - information(law, compute, values, noise)
    floored, floored_draws = _floored(law, budgets, means, weights, drawn, floor, generator)
    return ScalingFit(
        method=method,
        set_aside=set_aside,
        law=law,
        pure=pure,
        draws=refit(law, [budgets], drawn, LEAST_SQUARES, weights=weights),
        pure_draws=refit(pure, [budgets], drawn, LEAST_SQUARES, weights=weights)
        if support < SUBSTANTIAL_SUPPORT
        else np.empty((0, 2)),
        prefers_offset=support > 0,
        floor=floor,
        floored=floored,
        floored_draws=floored_draws,
        held_out_error=held_out_error(budgets, means, weights, offset=True),
        held_out_error_pure=held_out_error(budgets, means, weights, offset=False),
        seed_noise=pooled_deviation(log_values, cells),
        noise_draws=noise_draws,
        compute=compute,
        residuals=np.log(values / law(compute)),
    )


def _floored(
    law: Law, budgets: Array, means: Array, weights: Array, drawn: Array, floor: Interval | None, generator: np.random.Generator
) -> tuple[Law | None, Array]:
    """The law with a measured floor as prior on its offset, and its draws."""
    if floor is None or floor.low <= 0:
        return None, np.empty((0, 3))
    error = max((math.log(floor.high) - math.log(floor.low)) / (2 * 1.96), 1e-3)
    found = fit_law([budgets], means, offset=True, delta=LEAST_SQUARES, weights=weights, floor=(floor.value, error))
    floors = floor.value * np.exp(error * generator.standard_normal(len(drawn)))
    draws = refit(found, [budgets], drawn, LEAST_SQUARES, weights=weights, floors=floors, floor_error=error)
    return found, draws


def misfit(law: Law, num: int) -> float:
    """How many times farther than the noise between seeds num means lie from their law; at least 1.

    Sizes come from a grid, so that the best one is a little off at every budget, and differently so; seeds do not show it. As for
    measurements that disagree, their errors are stretched until they agree (Particle Data Group 2024, section 5.2.2).
    """
    return math.sqrt(max(1.0, 2 * law.objective / (num - len(law.parameters))))


def information(law: Law, compute: Array, values: Array, noise: SeedNoise) -> float:
    """Corrected Akaike criterion of the log-normal residuals of values (n,), weighted by their noise."""
    residuals = np.log(values / law(compute)) / noise.deviation(compute)
    n, k = len(values), len(law.parameters) + 1
    return float(n * np.log((residuals**2).mean()) + 2 * k + 2 * k * (k + 1) / max(n - k - 1, 1))


def held_out_error(budgets: Array, means: Array, weights: Array, *, offset: bool) -> float:
    """Relative error at the top budget, for a fit to means (B,) without it."""
    if len(budgets) < 4:
        return math.nan
    law = fit_law([budgets[:-1]], means[:-1], offset=offset, delta=LEAST_SQUARES, weights=weights[:-1])
    return float(abs(law(budgets[-1])[0] / means[-1] - 1))


def pooled_deviation(values: Array, cells: Indices) -> float:
    """Standard deviation of values (n,) between runs of one cell, pooled over cells with more than one; else NaN."""
    freedom = len(cells) - len(np.unique(cells))
    squares = ((values - cell_means(values, cells)[cells]) ** 2).sum()
    return math.sqrt(float(squares) / freedom) if freedom else math.nan
