"""Noise between seeds: its size at every budget, and how far the rungs of one trunk share it.

Letters: n runs, P coefficients, R draws, B slopes of the grid, K correlations of the grid.

Two things keep a pooled standard deviation from standing for a sweep. Seeds differ more at some budgets than at others; and the
rungs of one seed branch off one trunk, so that a seed that is lucky at one rung is lucky at the next. Here the logarithm of the
variance is a line in log compute, and the deviations of one ladder (one seed, at one size) are correlated: by r between any two
rungs, as where luck comes with the seed, or by r^(steps between them), as where a trunk forgets. A few seeds do not tell these
two apart, nor fix r or the slope, so all are drawn from what the data leave open: their restricted likelihood (Patterson &
Thompson 1971) with the priors below. Given them the variance's level follows an inverse chi-square law and the coefficients of a
linear model a normal one, which makes the intervals of a single mean those of Student.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from bench.analysis.least_losses import Array

Indices = NDArray[np.intp]

SLOPES = np.linspace(-2.5, 2.5, 51)
"""Of the log variance per e-fold of compute; from .02 to .5 over 2.5 decades it is 1.1."""
SLOPE_SPREAD = 1.0
"""Standard deviation of the prior around 0, which shrinks the line towards equal noise where seeds are few."""
CORRELATIONS = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.96])
"""Between neighboring rungs. Before the runs are seen, the odds of a value r between 0 and 1 are those of a density (1 - r)^-1/2:
with equal odds the crossings of two laws hold in .922 of 500 tables whose rungs are correlated by .9, with these in .954, and
with (1 - r)^-1, as in Jeffreys's prior of a correlation within classes, in .976 (docs/log.md, 2026-11-22)."""


def cell_means(values: Array, cells: Indices) -> Array:
    """Means (..., number of cells) of values (..., n) by cell 0, 1, ... (n,)."""
    onto = _indicators(cells)
    return np.asarray(values @ (onto / onto.sum(0)))


def _indicators(cells: Indices) -> Array:
    """(n, number of cells): 1 where a run is in a cell."""
    return (cells[:, None] == np.arange(int(cells.max()) + 1)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Several runs of one trunk, whose noise may be correlated."""

    runs: Indices  # (m,)
    roots: Array  # (K, m, m)
    """Cholesky factors of the runs' correlations."""


@dataclass(frozen=True)
class Prior:
    """What may hold of the noise of runs (n,) before their values are seen."""

    log_compute: Array  # (n,)
    center: float
    """Log compute at which the level of the variance holds."""
    slopes: Array  # (B,)
    correlations: Array  # (K,)
    """Between neighboring rungs of one ladder."""
    ladders: tuple[Ladder, ...]
    """Those of several runs."""

    def triangle(self, runs: Indices, both: Array) -> Array:
        """Triangular factors (K, B, P + 1, P + 1) of a design and the values beside it (m, P + 1), of some of the runs (m,) that
        are whole ladders: scaled by each slope and made independent by each correlation, one of these after another, since all
        together take too much memory."""
        scale = np.exp(-0.5 * self.slopes * (self.log_compute[runs] - self.center)[:, None])  # (m, B)
        scaled = (scale[:, :, None] * both[:, None]).reshape(len(runs), -1)
        places = {int(run): place for place, run in enumerate(runs)}
        ladders = [ladder for ladder in self.ladders if int(ladder.runs[0]) in places]
        own = [(np.array([places[int(run)] for run in ladder.runs]), ladder) for ladder in ladders]
        found = []
        for which in range(len(self.correlations)):
            whitened = scaled.copy()
            for rows, ladder in own:
                whitened[rows] = np.linalg.solve(ladder.roots[which], scaled[rows])
            parts = whitened.reshape(len(runs), len(self.slopes), -1).transpose(1, 0, 2)  # (B, m, P + 1)
            found.append(np.linalg.qr(parts, mode="r"))
        return np.asarray(found)

    def odds(self, freedom: float, squares: Array, log_determinants: Array) -> Array:
        """Probabilities (K, B) of correlations and slopes, for squared residuals (K, B) and the logarithms (K, B) of the
        determinants of the coefficients' precisions."""
        of_runs = np.zeros(len(self.correlations))  # the slopes' own cancel at the center
        for ladder in self.ladders:
            of_runs += 2 * np.log(np.diagonal(ladder.roots, axis1=1, axis2=2)).sum(1)
        odds = -0.5 * (freedom * np.log(squares) + log_determinants + of_runs[:, None] + (self.slopes / SLOPE_SPREAD) ** 2)
        if len(self.correlations) > 1:
            odds += np.log(np.tile(np.gradient(CORRELATIONS) / np.sqrt(1 - CORRELATIONS), 2))[:, None]
        odds = np.exp(odds - odds.max())
        return np.asarray(odds / odds.sum())


@dataclass(frozen=True)
class SeedNoise:
    """What runs (n,) of one method say of the noise of a log value, and of the coefficients of a linear model of it."""

    prior: Prior
    freedom: float
    squares: Array  # (K, B)
    """Sum of squared residuals, scaled to the center and made independent; over the chi-square draw it gives the level."""
    odds: Array  # (K, B)
    """Probabilities of correlations and slopes."""
    estimates: Array | None = None  # (K, B, P)
    """Coefficients by generalized least squares; None where they are not wanted."""
    precisions: Array | None = None  # (K, B, P, P)
    """Lower triangular roots of their precision at a level of 0."""

    @property
    def correlation(self) -> float:
        """Between neighboring rungs of one ladder: the posterior mean."""
        return float(self.odds.sum(1) @ self.prior.correlations)

    def deviation(self, compute: Array | float) -> Array:
        """Standard deviation between seeds (m,) at compute (m,), at the middle of what the data leave open."""
        log_c = np.log(np.atleast_1d(np.asarray(compute, dtype=np.float64))) - self.prior.center
        level = (self.odds * np.log(self.squares / self.freedom)).sum()
        return np.asarray(np.exp(0.5 * (level + float(self.odds.sum(0) @ self.prior.slopes) * log_c)))

    def draw(self, generator: np.random.Generator, num_draws: int) -> NoiseDraws:
        """Levels, slopes and correlations."""
        chosen = generator.choice(self.odds.size, num_draws, p=self.odds.ravel())
        correlation, slope = np.unravel_index(chosen, self.odds.shape)
        levels = np.log(self.squares.ravel()[chosen] / generator.chisquare(self.freedom, num_draws))
        return NoiseDraws(self, levels, slope, correlation)


@dataclass(frozen=True)
class NoiseDraws:
    """R draws of the noise that runs leave open."""

    noise: SeedNoise
    levels: Array  # (R,)
    """Of the log variance at the center."""
    slope: Indices  # (R,)
    """Which of the slopes."""
    correlation: Indices  # (R,)
    """Which of the correlations."""

    def deviations_at(self, compute: float) -> Array:
        """Standard deviations (R,) at one compute."""
        prior = self.noise.prior
        return np.asarray(np.exp(0.5 * (self.levels + prior.slopes[self.slope] * (np.log(compute) - prior.center))))

    def runs(self, generator: np.random.Generator) -> Array:
        """Noise (R, n) of newly drawn runs, all rungs of a ladder drawn together."""
        prior = self.noise.prior
        drawn = generator.standard_normal((len(self.levels), len(prior.log_compute)))
        for which in np.unique(self.correlation):
            draws = np.flatnonzero(self.correlation == which)
            for ladder in prior.ladders:
                part = np.ix_(draws, ladder.runs)
                drawn[part] = drawn[part] @ ladder.roots[which].T
        log_variance = self.levels[:, None] + prior.slopes[self.slope, None] * (prior.log_compute - prior.center)
        return np.asarray(drawn * np.exp(0.5 * log_variance))

    def coefficients(self, generator: np.random.Generator) -> Array:
        """Coefficients (R, P) of the linear model."""
        assert self.noise.estimates is not None
        assert self.noise.precisions is not None
        estimates, precisions = (v[self.correlation, self.slope] for v in (self.noise.estimates, self.noise.precisions))
        standard = generator.standard_normal((*estimates.shape, 1))
        away = np.linalg.solve(precisions.transpose(0, 2, 1), standard)[:, :, 0]
        return np.asarray(estimates + np.exp(0.5 * self.levels)[:, None] * away)


TOO_FEW = "the noise between seeds needs two seeds at some budget"
LEAST_SQUARE = 1e-24
"""Of residuals: values that fit their model exactly."""


def seed_noise(compute: Array, log_values: Array, cells: Indices, ladders: NDArray[Any]) -> SeedNoise:
    """What runs (n,) say of the noise between seeds around the means of their cells.

    Runs that share neither cell nor ladder, such as those of two sizes, are solved apart: what they say adds up, and together
    those of a method with 5,000 runs would take 50 GB.

    Args:
        compute: training FLOPs (n,).
        log_values: what is fitted (n,).
        cells: runs that differ in the seed alone share one, 0, 1, ... (n,).
        ladders: runs of one trunk share one (n,); a ladder has at most one run in a cell.

    Raises:
        ValueError: when no cell has two runs.
    """
    freedom = float(len(cells) - len(np.unique(cells)))
    if freedom < 1:
        raise ValueError(TOO_FEW)
    prior = _prior(compute, ladders)
    squares, log_determinants = np.zeros(1), np.zeros(1)
    for runs in _apart(cells, ladders):
        design = _indicators(np.unique(cells[runs], return_inverse=True)[1])
        triangle = prior.triangle(runs, np.concatenate([design, log_values[runs, None]], axis=1))
        squares, log_determinants = squares + triangle[..., -1, -1] ** 2, log_determinants + _log_determinants(triangle)
    squares = np.maximum(squares, LEAST_SQUARE)
    return SeedNoise(prior, freedom, squares, prior.odds(freedom, squares, log_determinants))


def residual_noise(compute: Array, log_values: Array, design: Array, ladders: NDArray[Any]) -> SeedNoise:
    """What runs (n,) say of the noise around a linear model with a design (n, P), whose misfit counts as noise, and of its
    coefficients.

    Raises:
        ValueError: when the model has a coefficient for every run.
    """
    n, p = design.shape
    freedom = float(n - p)
    if freedom < 1:
        raise ValueError(TOO_FEW)
    prior = _prior(compute, ladders)
    triangle = prior.triangle(np.arange(n), np.concatenate([design, log_values[:, None]], axis=1))
    precisions, last = triangle[..., :p, :p], triangle[..., :p, p]
    squares = np.maximum(triangle[..., p, p] ** 2, LEAST_SQUARE)
    odds = prior.odds(freedom, squares, _log_determinants(triangle))
    estimates: Array = np.asarray(np.linalg.solve(precisions, last[..., None])[..., 0], dtype=np.float64)
    return SeedNoise(prior, freedom, squares, odds, estimates, precisions.transpose(0, 1, 3, 2))


def _log_determinants(triangle: Array) -> Array:
    """Of the coefficients' precisions (K, B), from triangular factors (K, B, P + 1, P + 1) of design and values."""
    return np.asarray(2 * np.log(np.abs(np.diagonal(triangle, axis1=2, axis2=3)[..., :-1])).sum(2))


def _apart(cells: Indices, ladders: NDArray[Any]) -> list[Indices]:
    """The runs (n,) in groups of which no two share a cell or a ladder."""
    names, ladder = np.unique(ladders, return_inverse=True)
    num_cells = int(cells.max()) + 1
    size = num_cells + len(names)
    links = csr_matrix((np.ones(len(cells)), (cells, num_cells + ladder)), shape=(size, size))
    group = connected_components(links, directed=False)[1][cells]
    return [np.flatnonzero(group == number) for number in np.unique(group)]


def _prior(compute: Array, ladders: NDArray[Any]) -> Prior:
    """What may hold between the runs (n,) of ladders (n,)."""
    log_c = np.log(compute)
    slopes = SLOPES if np.ptp(log_c) > 0 else np.zeros(1)
    steps = np.diff(np.unique(log_c))
    step = float(steps.mean()) if len(steps) else 1.0
    groups = [np.flatnonzero(ladders == name) for name in np.unique(ladders)]
    several = tuple(Ladder(runs, _roots(log_c[runs], step)) for runs in groups if len(runs) > 1)
    return Prior(log_c, float(log_c.mean()), slopes, np.tile(CORRELATIONS, 2) if several else np.zeros(1), several)


def _roots(log_compute: Array, step: float) -> Array:
    """Cholesky factors (K, m, m) of what may hold between a ladder's runs (m,); step: the mean distance of rungs."""
    distance = np.abs(log_compute[:, None] - log_compute) / step
    own = np.eye(len(log_compute))
    between = CORRELATIONS[:, None, None]
    constant, fading = np.broadcast_to(between, (len(CORRELATIONS), *own.shape)), between ** np.maximum(distance, 1.0)
    return np.asarray(np.linalg.cholesky(np.concatenate([constant, fading]) * (1 - own) + own), dtype=np.float64)
