"""Scaling laws with honest intervals: power laws, the (N, D) surface, isoFLOP minima, crossings. Tables and files are elsewhere.

Letters: n observations, K power terms, P parameters, S starts, R bootstrap draws, C training FLOPs, N parameters, D images.

Every law is a sum of positive terms, exp(offset) + sum_k exp(intercept_k - exponent_k * log x_k), fitted to the logarithm of a
quantity that is better when smaller, by the sum of Huber losses (Hoffmann et al. 2022, appendix D.3) with an analytic gradient
and many starts; a loss averaged instead of summed, with default tolerances, stops far from the optimum (Besiroglu et al. 2024).
Observations can have weights, and a measured floor is one more observation: the law's value where every x is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, minimize

from bench.analysis.least_losses import Array as Array
from bench.analysis.least_losses import Problem, log_prediction, minimize_many

HUBER_DELTA = 1e-3
"""Hoffmann et al. 2022, appendix D.3, in log units."""
LEAST_SQUARES = 1e3
"""As delta, for weighted residuals in units of their standard deviation: none is larger, so that all are squared."""
INFINITY = 1e4
"""Logarithm of the x at which a floor is observed: every power term with an exponent above .01 is below e^-100 there."""
NUM_STARTS = 16
NUM_POLISHED = 4
"""Of the starts, refined by L-BFGS-B to the last digits."""


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
        return np.exp(log_prediction(self.parameters, logs, self.offset is not None)[0])

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


def _problem(logs: Array, offset: bool, delta: float, weights: Array | None, floor_error: float | None) -> tuple[Problem, Array]:
    """The problem with its features centered, and what was taken off them (K,)."""
    center, reach = logs.mean(0), np.ptp(logs, axis=0) / 2
    weights = np.ones(len(logs)) if weights is None else weights
    if floor_error is not None:
        logs = np.concatenate([logs, center + np.full((1, logs.shape[1]), INFINITY)])
        weights = np.append(weights, 1 / floor_error)
    return Problem(logs - center, reach, weights, offset, delta), center


def fit_law(
    x: Sequence[Array],
    y: Array,
    *,
    offset: bool,
    delta: float = HUBER_DELTA,
    num_starts: int = NUM_STARTS,
    weights: Array | None = None,
    floor: tuple[float, float] | None = None,
) -> Law:
    """Fit a law to y (n,) with one power term for each feature in x, all positive.

    Args:
        weights: of the log residuals (n,), one over their standard deviations; delta is then in units of these.
        floor: a measured value of the offset, and the standard error of its logarithm in units of delta.

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
    problem, center = _problem(logs, offset, delta, weights, None if floor is None else floor[1])
    if floor is not None:
        log_y = np.append(log_y, math.log(floor[0]))
    found, losses = minimize_many(problem.starts(log_y[None], num_starts)[0], problem, np.tile(log_y, (num_starts, 1)), 1e-10)
    order = np.argsort(losses)
    if delta < LEAST_SQUARES:
        found, losses = _polished(found[order[:NUM_POLISHED]], problem, log_y, scale=min(delta, 1.0) ** 2 * n)
        order = np.argsort(losses)
    p = found[order[0]]
    p[:k] += p[k : 2 * k] * center
    return Law.of(p, k, float(losses[order[0]]))


def _polished(starts: Array, problem: Problem, log_y: Array, scale: float) -> tuple[Array, Array]:
    """Fits (S, P) to the same log values (n,) to the last digits, and their losses (S,): where residuals count linearly, the
    damped steps stop early."""
    low, high = (v[0] for v in problem.bounds(log_y[None]))

    def scaled(p: Array) -> tuple[float, Array]:
        loss, gradient = problem.loss(p, log_y)
        return loss / scale, gradient / scale

    options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 2000, "maxfun": 4000}
    done = [minimize(scaled, p, jac=True, method="L-BFGS-B", bounds=Bounds(low, high), options=options) for p in starts]
    return np.array([found.x for found in done]), scale * np.array([float(found.fun) for found in done])


def refit(
    law: Law,
    x: Sequence[Array],
    y: Array,
    delta: float,
    *,
    weights: Array | None = None,
    floors: Array | None = None,
    floor_error: float | None = None,
) -> Array:
    """Parameters (R, P) of the law's form fitted to many data sets y (R, n) at the same features, each from its own nearest
    candidate: from the law's optimum a fit whose offset vanished would never find another. A floor is drawn anew for each of
    them, floors (R,)."""
    k = len(law.exponents)
    problem, center = _problem(np.log(np.stack(x, axis=1)), law.offset is not None, delta, weights, floor_error)
    log_y = np.log(y)
    if floors is not None:
        log_y = np.concatenate([log_y, np.log(floors)[:, None]], axis=1)
    found, _ = minimize_many(problem.starts(log_y, 1)[:, 0], problem, log_y, 1e-5)
    found[:, :k] += found[:, k : 2 * k] * center
    return found
