"""Fits over parameters and images together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bench.analysis.intervals import Interval
from bench.analysis.laws import LEAST_SQUARES, Array, Law, fit_law, refit
from bench.analysis.noise import cell_means, seed_noise
from bench.analysis.scaling import MIN_SEEDS, NUM_DRAWS, misfit, not_positive, well_seeded

NUM_PARAMETERS = 5
MIN_SIZES = 4
"""Of a surface: its parameters, two of them exponents, need sizes off the frontier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceFit:
    """A metric over parameters N and images D for one method, or the reason why there is none."""

    method: str
    missing: str = ""
    set_aside: str = ""
    """What the fit leaves out, as a sentence; empty when it has all runs."""
    law: Law | None = None
    """offset + A / N^alpha + B / D^beta."""
    draws: Array = field(default_factory=lambda: np.empty((0, NUM_PARAMETERS)))
    """(R, 5) parameters refitted to drawn ladders."""

    def interval(self, function: Callable[[Array], Array]) -> Interval:
        """Of a function of parameters (R, 5), such as an exponent."""
        assert self.law is not None
        drawn = Interval.of(function(self.draws))
        return Interval(drawn.low, float(function(self.law.parameters[None])[0]), drawn.high)

    @property
    def allocation(self) -> Interval | None:
        """a = beta / (alpha + beta): the best N grows as C^a (Hoffmann et al. 2022, section 3.3); None where a draw has neither
        exponent, as of a metric that never moved."""
        assert self.law is not None
        if (np.vstack([self.draws, self.law.parameters])[:, 2:4].sum(1) <= 0).any():
            return None
        return self.interval(lambda p: p[:, 3] / (p[:, 2] + p[:, 3]))


def fit_surface(
    method: str,
    budgets: Array,
    num_params: Array,
    images: Array,
    values: Array,
    seeds: Array,
    *,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> SurfaceFit:
    """Fit a method's runs (n,) of all sizes and budgets; draws add the noise of whole ladders as `fit_scaling` does.

    A cell is a size at a planned budget: the images that a loss with random shapes sees differ a little between its seeds. It
    needs a grid off the frontier: MIN_SIZES sizes and budgets with MIN_SEEDS seeds each.
    """
    usable = np.isfinite(values)
    budgets, num_params, images, values, seeds = (v[usable] for v in (budgets, num_params, images, values, seeds))
    refused = not_positive(values)
    if refused:
        return SurfaceFit(method=method, missing=refused)
    cells = np.unique(np.stack([num_params, budgets], axis=1), axis=0, return_inverse=True)[1]
    kept = well_seeded(cells, lambda runs: _is_grid(num_params[runs], budgets[runs]))
    left_out = f"the fit leaves out runs of sizes with fewer than {MIN_SEEDS} seeds at a budget: {(~kept).sum()}"
    budgets, num_params, images, values, seeds = (v[kept] for v in (budgets, num_params, images, values, seeds))
    names, cells, counts = np.unique(np.stack([num_params, budgets], axis=1), axis=0, return_inverse=True, return_counts=True)
    sizes, num_seeds = len(np.unique(num_params)), counts.min() if len(values) else 0
    if not _is_grid(num_params, budgets) or num_seeds < MIN_SEEDS:
        found = f"there are {sizes} sizes, {len(names)} cells and {num_seeds} seeds"
        return SurfaceFit(
            method=method,
            missing=f"no surface: a fit needs {MIN_SIZES} sizes, {MIN_SIZES**2} cells and {MIN_SEEDS} seeds each; {found}",
        )
    log_values = np.log(values)
    moved = len(np.unique(np.round(cell_means(log_values, cells), 9)))
    if moved <= NUM_PARAMETERS:  # as of prompt accuracy where no run follows a prompt
        return SurfaceFit(method=method, missing=f"no surface: {len(names)} cells have only {moved} different values")
    ladders = np.unique(np.stack([num_params, seeds], axis=1), axis=0, return_inverse=True)[1]
    noise = seed_noise(budgets, log_values, cells, ladders)
    x = [names[:, 0], cell_means(images.astype(float), cells)]
    means, weights = np.exp(cell_means(log_values, cells)), np.sqrt(counts) / noise.deviation(names[:, 1])
    law = fit_law(x, means, offset=True, delta=LEAST_SQUARES, weights=weights)
    generator = np.random.default_rng(seed)
    drawn = means * np.exp(misfit(law, len(means)) * cell_means(noise.draw(generator, num_draws).runs(generator), cells))
    draws = refit(law, x, drawn, LEAST_SQUARES, weights=weights)
    return SurfaceFit(method=method, set_aside="" if kept.all() else left_out, law=law, draws=draws)


def _is_grid(num_params: Array, budgets: Array) -> bool:
    """Whether runs (n,) have sizes and cells enough for a surface."""
    sizes = len(np.unique(num_params))
    return sizes >= MIN_SIZES and len(np.unique(np.stack([num_params, budgets]), axis=1).T) >= MIN_SIZES**2
