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


@dataclass(frozen=True)
class SeedNoise:
    """What runs (n,) of one method say of the noise of a log value, and of the coefficients of a linear model of it."""

    log_compute: Array  # (n,)
    center: float
    """Log compute at which the level of the variance holds."""
    slopes: Array  # (B,)
    correlations: Array  # (K,)
    """Between neighboring rungs of one ladder."""
    roots: Array  # (K, n, n)
    """Cholesky factors of the runs' correlations."""
    freedom: float
    squares: Array  # (K, B)
    """Sum of squared residuals, scaled to the center and made independent; over the chi-square draw it gives the level."""
    odds: Array  # (K, B)
    """Probabilities of correlations and slopes."""
    estimates: Array  # (K, B, P)
    """Coefficients by generalized least squares."""
    precisions: Array  # (K, B, P, P)
    """Lower triangular roots of their precision at a level of 0."""

    @property
    def correlation(self) -> float:
        """Between neighboring rungs of one ladder: the posterior mean."""
        return float(self.odds.sum(1) @ self.correlations)

    def deviation(self, compute: Array | float) -> Array:
        """Standard deviation between seeds (m,) at compute (m,), at the middle of what the data leave open."""
        log_c = np.log(np.atleast_1d(np.asarray(compute, dtype=np.float64))) - self.center
        level = (self.odds * np.log(self.squares / self.freedom)).sum()
        return np.asarray(np.exp(0.5 * (level + float(self.odds.sum(0) @ self.slopes) * log_c)))

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
        return np.asarray(np.exp(0.5 * (self.levels + self.noise.slopes[self.slope] * (np.log(compute) - self.noise.center))))

    def runs(self, generator: np.random.Generator) -> Array:
        """Noise (R, n) of newly drawn runs, all rungs of a ladder drawn together."""
        drawn = generator.standard_normal((len(self.levels), len(self.noise.log_compute)))
        for which in np.unique(self.correlation):
            drawn[self.correlation == which] @= self.noise.roots[which].T
        log_variance = self.levels[:, None] + self.noise.slopes[self.slope, None] * (self.noise.log_compute - self.noise.center)
        return np.asarray(drawn * np.exp(0.5 * log_variance))

    def coefficients(self, generator: np.random.Generator) -> Array:
        """Coefficients (R, P) of the linear model."""
        estimates, precisions = (v[self.correlation, self.slope] for v in (self.noise.estimates, self.noise.precisions))
        standard = generator.standard_normal((*estimates.shape, 1))
        away = np.linalg.solve(precisions.transpose(0, 2, 1), standard)[:, :, 0]
        return np.asarray(estimates + np.exp(0.5 * self.levels)[:, None] * away)


def seed_noise(compute: Array, log_values: Array, cells: Indices, ladders: NDArray[Any]) -> SeedNoise:
    """What runs (n,) say of the noise between seeds; the coefficients are the means of the cells.

    Args:
        compute: training FLOPs (n,).
        log_values: what is fitted (n,).
        cells: runs that differ in the seed alone share one, 0, 1, ... (n,).
        ladders: runs of one trunk share one (n,); a ladder has at most one run in a cell.

    Raises:
        ValueError: when no cell has two runs.
    """
    return residual_noise(compute, log_values, _indicators(cells), ladders)


def residual_noise(compute: Array, log_values: Array, design: Array, ladders: NDArray[Any]) -> SeedNoise:
    """What runs (n,) say of the noise around a linear model with a design (n, P), whose misfit counts as noise.

    Raises:
        ValueError: when the model has a coefficient for every run.
    """
    n, p = design.shape
    freedom = float(n - p)
    if freedom < 1:
        raise ValueError("the noise between seeds needs two seeds at some budget")
    log_c = np.log(compute)
    center = float(log_c.mean())
    slopes = SLOPES if np.ptp(log_c) > 0 else np.zeros(1)
    correlations, kinds = _correlations(log_c, ladders)
    roots: Array = np.asarray(np.linalg.cholesky(kinds), dtype=np.float64)
    scale = np.exp(-0.5 * slopes * (log_c - center)[:, None])  # (n, B)
    both = np.concatenate([design, log_values[:, None]], axis=1)
    scaled = (scale[:, :, None] * both[:, None]).reshape(n, -1)
    whitened = np.linalg.solve(roots, scaled).reshape(len(roots), n, len(slopes), p + 1).transpose(0, 2, 1, 3)  # (K, B, n, P + 1)
    triangle: Array = np.asarray(np.linalg.qr(whitened, mode="r"))  # (K, B, P + 1, P + 1)
    precisions, last = triangle[..., :p, :p], triangle[..., :p, p]
    squares = np.maximum(triangle[..., p, p] ** 2, 1e-24)
    log_determinants = 2 * np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)[:, None]  # the slopes' own cancel at the center
    log_determinants = log_determinants + 2 * np.log(np.abs(np.diagonal(precisions, axis1=2, axis2=3))).sum(2)
    odds = -0.5 * (freedom * np.log(squares) + log_determinants + (slopes / SLOPE_SPREAD) ** 2)
    if len(kinds) > 1:
        odds += np.log(np.tile(np.gradient(CORRELATIONS) / np.sqrt(1 - CORRELATIONS), 2))[:, None]
    odds = np.exp(odds - odds.max())
    odds /= odds.sum()
    estimates: Array = np.asarray(np.linalg.solve(precisions, last[..., None])[..., 0], dtype=np.float64)
    return SeedNoise(
        log_c, center, slopes, correlations, roots, freedom, squares, odds, estimates, precisions.transpose(0, 1, 3, 2)
    )


def _correlations(log_compute: Array, ladders: NDArray[Any]) -> tuple[Array, Array]:
    """What may hold between neighboring rungs (K,), and with it between all runs (K, n, n)."""
    steps = np.diff(np.unique(log_compute))
    distance = np.abs(log_compute[:, None] - log_compute) / (steps.mean() if len(steps) else 1.0)
    own = np.eye(len(ladders))
    same = (ladders[:, None] == ladders) - own
    if not same.any():
        return np.zeros(1), own[None]
    between = CORRELATIONS[:, None, None]
    constant, fading = np.broadcast_to(between, (len(CORRELATIONS), *own.shape)), between ** np.maximum(distance, 1.0)
    return np.tile(CORRELATIONS, 2), np.concatenate([constant, fading]) * same + own
