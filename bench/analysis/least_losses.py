"""Many small fits at once: sums of power terms to logarithms, from the nearest of many known shapes, by damped Newton steps.

Letters: n observations, K power terms, P parameters, S fits, M candidates.

A law is exp(offset) + sum_k exp(intercept_k - exponent_k * log x_k); its parameters (P,) are the intercepts, the exponents, and
the offset where it has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

Array = NDArray[np.float64]

LARGEST_DROP = 6.0
"""Most that a term may fall over half the range of its feature, in e-folds: a factor of 160,000 over the whole range. Such a step
looks like a steeper one at every budget but the lowest, so that no data tell them apart."""
LARGEST_SHARE = 6.0
"""Largest difference, in e-folds, between two terms of a candidate in the middle of its features."""
NO_OFFSET = 10.0
"""An offset that many e-folds below the smallest observation is none."""
LOG2_CANDIDATES = 10
"""Logarithm of their number (Sobol points come in powers of two)."""
NEWTON_ITERATIONS = 30
"""After these the loss of the best of 16 starts is within 1e-7 of its limit (24 simulated sweeps of three noises)."""


def log_prediction(p: Array, logs: Array, offset: bool) -> tuple[Array, Array]:
    """Logarithm of the law (..., n), shares of its terms (..., n, K or K + 1); parameters (..., P), log features (n, K)."""
    k = logs.shape[1]
    terms = p[..., None, :k] - p[..., None, k : 2 * k] * logs
    if offset:
        terms = np.concatenate([terms, np.broadcast_to(p[..., None, 2 * k :], (*terms.shape[:-1], 1))], axis=-1)
    largest = terms.max(-1, keepdims=True)
    powers = np.exp(terms - largest)
    total = powers.sum(-1, keepdims=True)
    return (largest + np.log(total))[..., 0], powers / total


def huber(residual: Array, delta: float) -> Array:
    """Huber's loss of residuals (...), element by element."""
    size = np.abs(residual)
    return np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))


@cache
def _shapes(num_terms: int, offset: bool) -> Array:
    """(M, P): laws of all shapes, for features centered and in units of half their range."""
    k = num_terms
    points = qmc.Sobol(2 * k - 1 + offset, seed=0).random_base2(LOG2_CANDIDATES)
    exponents = LARGEST_DROP * points[:, :k] ** 2  # most laws fall slowly
    others = LARGEST_SHARE * (2 * points[:, k:] - 1)
    return np.concatenate([np.zeros((len(points), 1)), others[:, : k - 1], exponents, others[:, k - 1 :]], axis=1)


@dataclass(frozen=True, slots=True)
class Problem:
    """What many fits have in common: everything but the values."""

    logs: Array  # (n, K)
    """Features, centered."""
    reach: Array  # (K,)
    """Half the range of each."""
    weights: Array  # (n,)
    """Of the residuals."""
    offset: bool
    delta: float
    """Huber's, for weighted residuals."""

    def bounds(self, log_y: Array) -> tuple[Array, Array]:
        """Least and largest parameters (S, P) for log values (S, n): no term rises, and an offset is not lost in the distance."""
        k = self.logs.shape[1]
        low = np.full((len(log_y), 2 * k + self.offset), -np.inf)
        high = -low
        low[:, k : 2 * k], high[:, k : 2 * k] = 0.0, LARGEST_DROP / self.reach
        low[:, 2 * k :] = log_y.min(1, keepdims=True) - NO_OFFSET
        return low, high

    def starts(self, log_y: Array, count: int) -> Array:
        """Parameters (S, count, P) of the candidates nearest to log values (S, n), each at its best height."""
        k = self.logs.shape[1]
        known = _shapes(k, self.offset).copy()
        known[:, k : 2 * k] /= self.reach
        shapes = log_prediction(known, self.logs, self.offset)[0]
        share = self.weights**2 / (self.weights**2).sum()
        heights = shapes @ share
        centered = shapes - heights[:, None]
        distance = centered**2 @ share - 2 * (log_y * share) @ centered.T
        nearest = distance.argmin(1)[:, None] if count == 1 else np.argpartition(distance, count - 1, axis=1)[:, :count]
        found = known[nearest]
        move = (log_y @ share)[:, None] - heights[nearest]
        found[..., :k] += move[..., None]
        found[..., 2 * k :] += move[..., None]
        return found

    def loss(self, p: Array, log_y: Array) -> tuple[float, Array]:
        """Sum of the Huber losses of one fit, and its gradient (P,)."""
        k, delta = self.logs.shape[1], self.delta
        prediction, shares = log_prediction(p, self.logs, self.offset)
        residual = (prediction - log_y) * self.weights
        slope = (np.clip(residual, -delta, delta) * self.weights)[:, None] * shares
        gradient = np.concatenate([slope[:, :k].sum(0), -(slope[:, :k] * self.logs).sum(0), slope[:, k:].sum(0)])
        return float(huber(residual, delta).sum()), gradient


def minimize_many(starts: Array, problem: Problem, log_y: Array, tolerance: float) -> tuple[Array, Array]:
    """Minimize the Huber losses of many fits at once by Levenberg-Marquardt steps with Huber's weights, within the bounds.

    Args:
        starts: (S, P) parameters; fit s is to log_y[s] from starts[s].
        log_y: (S, n).
        tolerance: relative change of the loss at which a fit is settled.

    Returns:
        parameters (S, P) and sums of Huber losses (S,).
    """
    logs, delta, k = problem.logs, problem.delta, problem.logs.shape[1]
    low, high = problem.bounds(log_y)

    def evaluate(p: Array, log_y: Array) -> tuple[Array, Array, Array]:
        prediction, shares = log_prediction(p, logs, problem.offset)
        residual = (prediction - log_y) * problem.weights
        return residual, shares, huber(residual, delta).sum(1)

    p = np.clip(starts, low, high)
    residual, shares, loss = evaluate(p, log_y)
    damping = np.full(len(p), 1e-2)
    diagonal = np.arange(p.shape[1])
    active = np.arange(len(p))
    for _ in range(NEWTON_ITERATIONS):
        now, part = p[active], shares[active]
        jacobian = np.concatenate([part[:, :, :k], -part[:, :, :k] * logs, part[:, :, k:]], axis=2)
        jacobian *= problem.weights[:, None]
        weighted = jacobian * np.minimum(1.0, delta / np.maximum(np.abs(residual[active]), 1e-300))[:, :, None]
        gradient = np.einsum("snp,sn->sp", weighted, residual[active])
        curvature = np.einsum("snp,snq->spq", weighted, jacobian)
        held = ((now <= low[active]) & (gradient > 0)) | ((now >= high[active]) & (gradient < 0))
        gradient[held] = 0.0
        curvature[held[:, :, None] | held[:, None, :]] = 0.0
        curvature[:, diagonal, diagonal] *= 1 + damping[active, None]
        curvature[:, diagonal, diagonal] += 1e-14 + held
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        trial = np.clip(now - step, low[active], high[active])
        found = evaluate(trial, log_y[active])
        before = loss[active]
        better = found[2] < before
        settled = (np.abs(before - found[2]) <= tolerance * before) | (damping[active] > 1e10)
        moved = active[better]
        p[moved], residual[moved], shares[moved], loss[moved] = (v[better] for v in (trial, *found))
        damping[active] = np.clip(np.where(better, damping[active] / 5, damping[active] * 4), 1e-12, 1e12)
        active = active[~settled]
        if not len(active):
            break
    return p, loss
