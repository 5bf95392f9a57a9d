"""Noise between seeds: its size at every budget, and how far the rungs of one trunk share it.

Letters: n runs, R draws, B slopes of the grid, K correlations of the grid.

Two things keep a pooled standard deviation from standing for a sweep. Seeds differ more at some budgets than at others; and the
rungs of one seed branch off one trunk, so that a seed that is lucky at one rung is lucky at the next. Here the logarithm of the
variance is a line in log compute, and the deviations of one ladder (one seed, at one size) are correlated by r^(distance in log
compute), in units of the mean step between rungs. Both are known from a few seeds only, so they are drawn from what the data
leave open instead of being fixed: given the line's slope and r, the variance's level follows an inverse chi-square law, which
makes the intervals of a single mean those of Student.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.laws import Array

Indices = NDArray[np.intp]

SLOPES = np.linspace(-2.5, 2.5, 101)
"""Of the log variance per e-fold of compute; from .02 to .5 over 2.5 decades it is 1.1."""
SLOPE_SPREAD = 1.0
"""Standard deviation of the prior around 0, which shrinks the line towards equal noise where seeds are few."""
CORRELATIONS = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98])


def cell_means(values: Array, cells: Indices) -> Array:
    """Means (..., number of cells) of values (..., n) by cell 0, 1, ... (n,)."""
    onto = np.zeros((len(cells), int(cells.max()) + 1))
    onto[np.arange(len(cells)), cells] = 1
    return np.asarray(values @ (onto / onto.sum(0)))


@dataclass(frozen=True)
class SeedNoise:
    """What runs (n,) of one method say of the noise of a log value between seeds."""

    log_compute: Array  # (n,)
    center: float
    """Log compute at which the level of the variance holds."""
    previous: Indices  # (n,)
    """Index of the run one rung lower in the same ladder; -1 where there is none."""
    gap: Array  # (n,)
    """Distance to it, in mean steps between rungs."""
    freedom: float
    squares: Array  # (B, K)
    """Weighted sum of squared innovations, which over the chi-square draw gives the level."""
    odds: Array  # (B, K)
    """Probabilities of slopes and correlations."""

    @property
    def correlation(self) -> float:
        """Between neighboring rungs of one ladder: the posterior mean."""
        return float(self.odds.sum(0) @ CORRELATIONS)

    def deviation(self, compute: Array | float) -> Array:
        """Standard deviation between seeds (m,) at compute (m,), at the middle of what the data leave open."""
        log_c = np.log(np.atleast_1d(np.asarray(compute, dtype=np.float64))) - self.center
        level = (self.odds * np.log(self.squares / self.freedom)).sum()
        return np.asarray(np.exp(0.5 * (level + float(self.odds.sum(1) @ SLOPES) * log_c)))

    def draw(self, generator: np.random.Generator, num_draws: int) -> tuple[Array, Array, Array]:
        """Levels and slopes of the log variance (R,), and correlations (R,)."""
        chosen = generator.choice(self.odds.size, num_draws, p=self.odds.ravel())
        slope, correlation = np.unravel_index(chosen, self.odds.shape)
        level = np.log(self.squares.ravel()[chosen] / generator.chisquare(self.freedom, num_draws))
        return level, SLOPES[slope], CORRELATIONS[correlation]

    def deviations_at(self, compute: float, levels: Array, slopes: Array) -> Array:
        """Standard deviations (R,) at one compute for drawn levels and slopes (R,)."""
        return np.asarray(np.exp(0.5 * (levels + slopes * (np.log(compute) - self.center))))

    def runs(self, generator: np.random.Generator, levels: Array, slopes: Array, correlations: Array) -> Array:
        """Noise (R, n) of the runs, all rungs of a ladder drawn together."""
        standard = generator.standard_normal((len(levels), len(self.previous)))
        waiting = self.previous >= 0
        known = ~waiting
        while waiting.any():
            ready = np.flatnonzero(waiting & known[self.previous])
            share = correlations[:, None] ** self.gap[ready]
            before = standard[:, self.previous[ready]]
            standard[:, ready] = share * before + np.sqrt(1 - share**2) * standard[:, ready]
            waiting[ready], known[ready] = False, True
        return np.asarray(standard * np.exp(0.5 * (levels[:, None] + slopes[:, None] * (self.log_compute - self.center))))


def seed_noise(compute: Array, log_values: Array, cells: Indices, ladders: NDArray[Any]) -> SeedNoise:
    """What runs (n,) say of the noise between seeds.

    Args:
        compute: training FLOPs (n,).
        log_values: what is fitted (n,).
        cells: runs that differ in the seed alone share one, 0, 1, ... (n,).
        ladders: runs of one trunk share one (n,); a ladder has at most one run in a cell.

    Raises:
        ValueError: when no cell has two runs.
    """
    count = np.bincount(cells)[cells]
    freedom = float((1 - 1 / count).sum())
    if freedom < 0.5:
        raise ValueError("the noise between seeds needs two seeds at some budget")
    log_c = np.log(compute)
    known = count > 1
    weight = 1 - 1 / count
    deviation = np.where(known, (log_values - cell_means(log_values, cells)[cells]) / np.sqrt(np.maximum(weight, 0.5)), 0.0)
    center = float((weight * log_c).sum() / weight.sum())
    steps = np.diff(np.unique(log_c))
    spacing = float(steps.mean()) if len(steps) else 1.0
    previous, gap = np.full(len(compute), -1, dtype=np.intp), np.zeros(len(compute))
    order = np.lexsort((log_c, ladders))
    for before, after in pairwise(order):
        if ladders[before] == ladders[after] and log_c[before] < log_c[after]:
            previous[after], gap[after] = before, (log_c[after] - log_c[before]) / spacing
    scaled = deviation * np.exp(-0.5 * SLOPES[:, None] * (log_c - center))  # (B, n)
    follows = (previous >= 0) & known & known[previous]
    squares, odds = np.empty((len(SLOPES), len(CORRELATIONS))), np.empty((len(SLOPES), len(CORRELATIONS)))
    for index, correlation in enumerate(CORRELATIONS):
        share = np.where(follows, correlation**gap, 0.0)
        innovation = scaled - share * np.where(follows, scaled[:, previous], 0.0)
        squares[:, index] = (weight * innovation**2 / (1 - share**2)).sum(1)
        odds[:, index] = -0.5 * (weight * np.log(1 - share**2)).sum()
    squares = np.maximum(squares, 1e-24)
    odds -= 0.5 * freedom * np.log(squares) + 0.5 * (SLOPES[:, None] / SLOPE_SPREAD) ** 2
    odds += np.log(np.gradient(CORRELATIONS))
    odds = np.exp(odds - odds.max())
    return SeedNoise(log_c, center, previous, gap, freedom, squares, odds / odds.sum())
