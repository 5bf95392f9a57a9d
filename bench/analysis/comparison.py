"""From a results table to numbers: who leads, scaling fits, best sizes, crossings. No files, no figures.

Every comparison uses the test rows of averaged weights at the setting that validation conditions chose for the metric, and the
best size of each method at each budget.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bench.analysis.crossings import Crossing, IsoFlop, crossing, isoflop_minimum
from bench.analysis.laws import Array
from bench.analysis.metrics import JUDGES, METRICS, Metric, best_per_budget, judge_text, methods_of
from bench.analysis.rates import at_best_rates
from bench.analysis.scaling import Interval, ScalingFit, fit_scaling, lacking
from bench.analysis.surfaces import SurfaceFit, fit_surface
from bench.results.table import finished_rows

T = TypeVar("T")


@dataclass(frozen=True)
class Analysis:
    """What a table says. Everything is computed at first use and kept."""

    frame: pd.DataFrame
    """The rows of one protocol."""
    notes: tuple[str, ...] = ()
    """What was left out or is missing, a sentence each."""
    num_draws: int = 1000
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict)

    def _keep(self, what: str, name: str, compute: Callable[[], T]) -> T:
        """A result for a metric, computed at the first call."""
        if (what, name) not in self._kept:
            self._kept[what, name] = compute()
        found: T = self._kept[what, name]
        return found

    def metric(self, name: str) -> Metric:
        """A metric whose label names what measured it in this table."""
        judges = sorted({judge_text(str(judge)) for judge in self.rows(name)[JUDGES[name]].dropna()})
        metric = METRICS[name]
        return replace(metric, label=f"{metric.label}, {' and '.join(judges)}") if judges else metric

    @cached_property
    def methods(self) -> list[str]:
        """Methods with a finished row."""
        return methods_of(finished_rows(self.frame))

    def rows(self, name: str, *, ema: bool = True) -> pd.DataFrame:
        """Finished test rows with a finite value of the metric, one per run at the learning rate that is best for it."""
        metric = METRICS[name]
        found = at_best_rates(finished_rows(self.frame, metric.tuned_for, ema=ema), self.frame, metric.tuned_for)
        return found[np.isfinite(found[name].astype(float))]

    def best_runs(self, name: str) -> pd.DataFrame:
        """The runs of each method's best size at each budget, all seeds."""
        rows, keys = self.rows(name), ["method", "flops_budget", "width", "depth"]
        return rows.merge(best_per_budget(rows, METRICS[name])[keys], on=keys)

    def values(self, name: str, budget: float) -> dict[str, Array]:
        """Per method the metric of its best size at a budget, one value per seed (n,)."""
        runs = self.best_runs(name)
        return {m: g[name].to_numpy(float) for m, g in runs[runs["flops_budget"] == budget].groupby("method")}

    @cached_property
    def budgets(self) -> list[float]:
        """Budgets with finished runs, ascending."""
        return sorted(finished_rows(self.frame)["flops_budget"].unique())

    def fits(self, name: str) -> dict[str, ScalingFit]:
        """A fit, or what is missing for it, of each method."""

        def fit(mine: pd.DataFrame, method: str) -> ScalingFit:
            compute = mine["flops_budget"].to_numpy(float)
            return fit_scaling(method, compute, METRICS[name].shortfall(mine), num_draws=self.num_draws)

        return self._keep("fits", name, lambda: self._by_method(self.best_runs(name), fit))

    def surfaces(self, name: str) -> dict[str, SurfaceFit]:
        """A fit over parameters and images of all runs, or what is missing for it, of each method."""

        def fit(mine: pd.DataFrame, method: str) -> SurfaceFit:
            size, images = (mine[column].to_numpy(float) for column in ("num_params", "images_seen"))
            return fit_surface(method, size, images, METRICS[name].shortfall(mine), num_draws=self.num_draws)

        return self._keep("surfaces", name, lambda: self._by_method(self.rows(name), fit))

    def minima(self, name: str) -> dict[str, list[IsoFlop]]:
        """The best size of each method at each budget by a parabola, or why there is none."""

        def fit(mine: pd.DataFrame, method: str) -> list[IsoFlop]:
            return [
                isoflop_minimum(budget, cell["num_params"].to_numpy(float), METRICS[name].shortfall(cell))
                for budget, cell in mine.groupby("flops_budget")
            ]

        return self._keep("minima", name, lambda: self._by_method(self.rows(name), fit))

    def _by_method(self, rows: pd.DataFrame, compute: Callable[[pd.DataFrame, str], T]) -> dict[str, T]:
        return {method: compute(rows[rows["method"] == method], method) for method in self.methods}

    def crossings(self, name: str) -> list[Crossing]:
        """Where every two fitted methods meet."""
        fits = [fit for fit in self.fits(name).values() if fit.law is not None]
        pairs = itertools.combinations(fits, 2)
        return self._keep("crossings", name, lambda: [crossing(a, b) for a, b in pairs])

    def missing(self) -> str:
        """What keeps this table from scaling exponents; empty when nothing does for at least one method."""
        reasons = {method: lacking(g["flops_budget"].to_numpy(float)) for method, g in self.best_runs("fid").groupby("method")}
        return "" if not reasons or not all(reasons.values()) else next(iter(reasons.values()))


def analyse(frame: pd.DataFrame, num_draws: int = 1000) -> Analysis:
    """Prepare a table: rows of different protocols never meet, so the largest group stays and the others are named."""
    notes = []
    done = frame[frame["status"] == "done"]
    protocols = done["protocol"].value_counts()
    if len(protocols) > 1:
        kept = protocols.index[0]
        others = ", ".join(str(p) for p in protocols.index[1:])
        notes.append(
            f"{int(protocols.iloc[1:].sum())} rows of other protocols ({others}) are left out: they do not compare with "
            f"{kept}; give each protocol its own results folder"
        )
        frame = frame[(frame["status"] != "done") | (frame["protocol"] == kept)]
    failed = frame[frame["status"] == "failed"]["run_id"].nunique()
    if failed:
        notes.append(f"{failed} runs failed; the run table gives their errors")
    rows = finished_rows(frame)
    for name in ("fid", "prompt_accuracy"):
        empty = ~np.isfinite(finished_rows(frame, METRICS[name].tuned_for)[name].astype(float))
        blank = int(empty.sum())
        if blank and not empty.all():
            notes.append(f"{blank} finished runs have no {name} and are missing from its figures")
    if rows.empty:
        notes.append("no finished run on test captions; there is nothing to compare yet")
    elif rows["flops_budget"].nunique() == 1:
        notes.append("there is one budget only; nothing can be said about scaling")
    return Analysis(frame, tuple(notes), num_draws)


def difference(cells: dict[str, Array], a: str, b: str, *, ratio: bool) -> Interval | None:
    """a minus b (or the logarithm of a over b) with its 95 % t interval; None where no method has two seeds.

    The variance between seeds is pooled over all methods of the comparison, since few have more than two or three.
    """
    values = {m: np.log(v) if ratio else v for m, v in cells.items()}
    freedom = sum(len(v) - 1 for v in values.values())
    if freedom == 0 or not all(np.isfinite(v).all() for v in values.values()):
        return None
    variance = sum(float(((v - v.mean()) ** 2).sum()) for v in values.values()) / freedom
    middle = float(values[a].mean() - values[b].mean())
    reach = float(student.ppf(0.975, freedom)) * math.sqrt(variance * (1 / len(values[a]) + 1 / len(values[b])))
    return Interval(middle - reach, middle, middle + reach)


def leader(cells: dict[str, Array], metric: Metric) -> tuple[str, str | None, Interval | None]:
    """The best method by its mean, the second, and the interval of its lead (positive when ahead)."""
    ranked: Sequence[str] = sorted(cells, key=lambda m: float(cells[m].mean()), reverse=metric.higher_is_better)
    if len(ranked) < 2:
        return ranked[0], None, None
    lead = difference(cells, ranked[0], ranked[1], ratio=not metric.share)
    if lead is not None and not metric.higher_is_better:
        lead = -lead
    return ranked[0], ranked[1], lead
