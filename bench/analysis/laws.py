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
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]

HUBER_DELTA = 1e-3
"""Hoffmann et al. 2022, appendix D.3, in log units."""
LEAST_SQUARES = 1e3
"""As delta, for weighted residuals in units of their standard deviation: none is larger, so that all are squared."""
INFINITY = 1e4
"""Logarithm of the x at which a floor is observed: every power term with an exponent above .01 is below e^-100 there."""
NUM_STARTS = 64
NUM_POLISHED = 4
"""Of the starts, refined by L-BFGS-B to the last digits."""
NEWTON_ITERATIONS = 60


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


@dataclass(frozen=True, slots=True)
class _Problem:
    """What many fits have in common: everything but the values."""

    logs: Array  # (n, K)
    weights: Array  # (n,), of the residuals
    measured: Array  # (n,), False for a floor
    offset: bool
    delta: float

    def ceiling(self, log_y: Array) -> Array:
        """The largest log offset (...,) for log values (..., n)."""
        return np.asarray(log_y[..., self.measured].min(-1))


def _problem(logs: Array, offset: bool, delta: float, weights: Array | None, floor_error: float | None) -> tuple[_Problem, Array]:
    """The problem with its features centered, and what was taken off them (K,)."""
    center = logs.mean(0)
    weights = np.ones(len(logs)) if weights is None else weights
    measured = np.ones(len(logs), dtype=bool)
    if floor_error is not None:
        logs = np.concatenate([logs, center + np.full((1, logs.shape[1]), INFINITY)])
        weights, measured = np.append(weights, 1 / floor_error), np.append(measured, False)
    return _Problem(logs - center, weights, measured, offset, delta), center


def objective(p: Array, problem: _Problem, log_y: Array, scale: float) -> tuple[float, Array]:
    """Scaled sum of Huber losses of the weighted log residuals, and its gradient (P,)."""
    logs, delta, offset, weights = problem.logs, problem.delta, problem.offset, problem.weights
    k = logs.shape[1]
    prediction, shares = log_prediction(p, logs, offset)
    residual = (prediction - log_y) * weights
    slope = (np.clip(residual, -delta, delta) * weights)[:, None] * shares
    gradient = [slope[:, :k].sum(0), -(slope[:, :k] * logs).sum(0)]
    if offset:
        gradient.append(slope[:, k:].sum(0))
    return scale * float(huber(residual, delta).sum()), scale * np.concatenate(gradient)


def _damped_newton(starts: Array, problem: _Problem, log_y: Array, iterations: int = NEWTON_ITERATIONS) -> tuple[Array, Array]:
    """Minimize the Huber losses of many fits at once by Levenberg-Marquardt steps with Huber's weights.

    Args:
        starts: (S, P) parameters; fit s is to log_y[s] from starts[s].
        log_y: (S, n).

    Returns:
        parameters (S, P) and sums of Huber losses (S,).
    """
    logs, delta, k = problem.logs, problem.delta, problem.logs.shape[1]
    ceiling = problem.ceiling(log_y)

    def evaluate(p: Array, log_y: Array) -> tuple[Array, Array, Array]:
        prediction, shares = log_prediction(p, logs, problem.offset)
        residual = (prediction - log_y) * problem.weights
        return residual, shares, huber(residual, delta).sum(1)

    p = starts.copy()
    residual, shares, loss = evaluate(p, log_y)
    damping = np.full(len(p), 1e-2)
    diagonal = np.arange(p.shape[1])
    active = np.arange(len(p))
    for _ in range(iterations):
        part = shares[active]
        jacobian = np.concatenate([part[:, :, :k], -part[:, :, :k] * logs, part[:, :, k:]], axis=2)
        jacobian *= problem.weights[:, None]
        weighted = jacobian * np.minimum(1.0, delta / np.maximum(np.abs(residual[active]), 1e-300))[:, :, None]
        gradient = np.einsum("snp,sn->sp", weighted, residual[active])
        curvature = np.einsum("snp,snq->spq", weighted, jacobian)
        curvature[:, diagonal, diagonal] *= 1 + damping[active, None]
        curvature[:, diagonal, diagonal] += 1e-14
        trial = p[active] - np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        if problem.offset:
            trial[:, 2 * k] = np.minimum(trial[:, 2 * k], ceiling[active])
        found = evaluate(trial, log_y[active])
        before = loss[active]
        better = found[2] < before
        settled = (np.abs(before - found[2]) <= 1e-10 * before) | (damping[active] > 1e10)
        moved = active[better]
        p[moved], residual[moved], shares[moved], loss[moved] = (v[better] for v in (trial, *found))
        damping[active] = np.clip(np.where(better, damping[active] / 5, damping[active] * 4), 1e-12, 1e12)
        active = active[~settled]
        if not len(active):
            break
    return p, loss


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
    generator = np.random.default_rng(0)
    spread = log_y.max() - log_y.min() + 1.0
    starts = np.empty((num_starts, num))
    starts[:, :k] = log_y.mean() - math.log(k + offset) + generator.uniform(-spread, spread, (num_starts, k))
    starts[:, k : 2 * k] = generator.uniform(0.02, 1.0, (num_starts, k))
    if offset:
        starts[:, 2 * k] = log_y.min() - generator.exponential(0.7, num_starts)
    if floor is not None:
        log_y = np.append(log_y, math.log(floor[0]))
    found, losses = _damped_newton(starts, problem, np.tile(log_y, (num_starts, 1)))
    scale = 1.0 / (min(delta, 1.0) ** 2 * n)
    highest = float(problem.ceiling(log_y))
    polished = [
        minimize(
            objective,
            found[index],
            (problem, log_y, scale),
            jac=True,
            method="L-BFGS-B",
            bounds=[(None, None)] * (2 * k) + ([(None, highest)] if offset else []),
            options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 2000, "maxfun": 4000},
        )
        for index in np.argsort(losses)[:NUM_POLISHED]
    ]
    best = min(polished, key=lambda done: float(done.fun))
    p = best.x.copy()
    p[:k] += p[k : 2 * k] * center
    return Law.of(p, k, float(best.fun) / scale)


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
    """Parameters (R, P) of the law's form fitted to many data sets y (R, n) at the same features, from the law's optimum; a
    floor is drawn anew for each of them, floors (R,)."""
    k = len(law.exponents)
    problem, center = _problem(np.log(np.stack(x, axis=1)), law.offset is not None, delta, weights, floor_error)
    start, log_y = law.parameters, np.log(y)
    start[:k] -= start[k : 2 * k] * center
    if floors is not None:
        log_y = np.concatenate([log_y, np.log(floors)[:, None]], axis=1)
    found, _ = _damped_newton(np.tile(start, (len(y), 1)), problem, log_y)
    found[:, :k] += found[:, k : 2 * k] * center
    return found
