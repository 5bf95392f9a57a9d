"""Fits over parameters and images together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bench.analysis.laws import Array, Law, fit_law, refit
from bench.analysis.scaling import LEVELS, MIN_SEEDS, NUM_DRAWS, Interval, huber_delta, resampled_seeds, seed_noise

MIN_SIZES = 4
"""Of a surface: five parameters, two of them exponents, need sizes off the frontier."""


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
    delta = huber_delta(seed_noise(cell, np.log(values)))
    law = fit_law([num_params, images], values, offset=True, delta=delta)
    drawn = resampled_seeds(cell, values, seed, num_draws)
    return SurfaceFit(method=method, law=law, draws=refit(law, [num_params, images], drawn, delta))
