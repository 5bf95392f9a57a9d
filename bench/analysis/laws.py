"""Scaling laws with honest intervals: power laws, the (N, D) surface, isoFLOP minima, crossings. Tables and files are elsewhere.

Letters: n observations, K power terms, P parameters, S starts, R bootstrap draws, C training FLOPs, N parameters, D images.

Every law is a sum of positive terms, exp(offset) + sum_k exp(intercept_k - exponent_k * log x_k), fitted to the logarithm of a
quantity that is better when smaller, by the sum of Huber losses (Hoffmann et al. 2022, appendix D.3) with an analytic gradient
and many starts; a loss averaged instead of summed, with default tolerances, stops far from the optimum (Besiroglu et al. 2024).
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
HUBER_EFFICIENT = 1.345
"""Times the noise's standard deviation: 95 % efficient for Gaussian noise (Huber 1981, section 4.5)."""
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
    """Huber's loss, element by element."""
    size = np.abs(residual)
    return np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))


def objective(p: Array, logs: Array, log_y: Array, offset: bool, delta: float, scale: float) -> tuple[float, Array]:
    """Scaled sum of Huber losses of the log residuals, and its gradient (P,)."""
    k = logs.shape[1]
    prediction, shares = log_prediction(p, logs, offset)
    residual = prediction - log_y
    slope = np.clip(residual, -delta, delta)[:, None] * shares
    gradient = [slope[:, :k].sum(0), -(slope[:, :k] * logs).sum(0)]
    if offset:
        gradient.append(slope[:, k:].sum(0))
    return scale * float(huber(residual, delta).sum()), scale * np.concatenate(gradient)


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
        prediction, shares = log_prediction(p, logs, offset)
        residual = prediction - log_y
        return residual, shares, huber(residual, delta).sum(1)

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
            objective,
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
