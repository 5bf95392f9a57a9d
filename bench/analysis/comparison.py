"""From a results table to numbers: who leads, scaling fits, best sizes, crossings. No files, no figures.

Every comparison uses the test rows of averaged weights at the setting that validation conditions chose for the metric, and of
each method at each budget the size that validation conditions chose too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from bench.analysis.crossings import Crossing, crossing
from bench.analysis.intervals import Interval
from bench.analysis.isoflop import IsoFlop, OptimalPath, isoflop_minimum, optimal_path
from bench.analysis.laws import Array
from bench.analysis.metrics import JUDGES, METRICS, SIZE, Metric, best_per_budget, criterion, judge_text, methods_of
from bench.analysis.rates import at_best_rates
from bench.analysis.scaling import MIN_SEEDS, ScalingFit, fit_scaling, lacking
from bench.analysis.surfaces import SurfaceFit, fit_surface
from bench.analysis.traits import Traits, method_traits, traits
from bench.analysis.welch import Sample, difference, mean_interval
from bench.progress import format_number
from bench.results.table import finished_rows, loss_rows

T = TypeVar("T")


@dataclass(frozen=True)
class Analysis:
    """What a table says. Everything is computed at first use and kept."""

    frame: pd.DataFrame
    """The rows of one protocol."""
    notes: tuple[str, ...] = ()
    """What was left out or is missing, a sentence each."""
    num_draws: int = 1000
    traits: Mapping[str, Traits] = field(default_factory=dict)
    """What each method is; see `bench.analysis.traits`."""
    _kept: dict[tuple[Hashable, ...], Any] = field(default_factory=dict, init=False)

    def _keep(self, what: tuple[Hashable, ...], compute: Callable[[], T]) -> T:
        """A result, computed at the first call; to be read only."""
        if what not in self._kept:
            self._kept[what] = compute()
        found: T = self._kept[what]
        return found

    def metric(self, name: str) -> Metric:
        """A metric whose label names what measured it in this table."""
        metric = METRICS[name]
        judges = sorted({judge_text(str(judge)) for judge in self.rows(name)[JUDGES[name]].dropna()}) if name in JUDGES else []
        return replace(metric, label=f"{metric.label}, {' and '.join(judges)}") if judges else metric

    @cached_property
    def protocol(self) -> str:
        """The protocol of the finished rows; empty where there is none."""
        found = self.frame[self.frame["status"] == "done"]["protocol"].dropna().unique()
        return str(found[0]) if len(found) else ""

    @cached_property
    def methods(self) -> list[str]:
        """Methods with a finished row on test conditions, or a run that was measured by its loss alone."""
        return methods_of(pd.concat([finished_rows(self.frame), loss_rows(self.frame)]))

    @cached_property
    def budgets(self) -> list[float]:
        """Budgets with runs that were sampled, ascending; where none was, those with runs that were measured by their loss."""
        rows = finished_rows(self.frame)
        return sorted((rows if len(rows) else loss_rows(self.frame))["flops_budget"].unique())

    @cached_property
    def validation(self) -> pd.DataFrame:
        """Finished rows on validation conditions: one per run and sampler setting tried."""
        frame = self.frame
        return frame[(frame["status"] == "done") & (frame["split"] == "validation")]

    def rows(self, name: str, *, ema: bool = True) -> pd.DataFrame:
        """Finished test rows with a finite value of the metric, one per run at the learning rate that is best for it; of a loss
        also the rows of runs that are not sampled."""
        metric = METRICS[name]

        def find() -> pd.DataFrame:
            rows = finished_rows(self.frame, metric.tuned_for, ema=ema) if metric.of_images else loss_rows(self.frame, ema=ema)
            found = at_best_rates(rows, self.frame, metric.tuned_for)
            return found[np.isfinite(found[name].astype(float))]

        return self._keep(("rows", name, ema), find)

    def best_sizes(self, name: str) -> pd.DataFrame:
        """The size of each method at each budget that is best on validation rows, with what its test rows say: see
        `best_per_budget`."""

        return self._keep(("best sizes", name), lambda: self._best_of(self.rows(name), name))

    def _best_of(self, rows: pd.DataFrame, name: str) -> pd.DataFrame:
        """The best sizes among those of some rows."""
        if not METRICS[name].of_images:  # measured on validation images already
            return best_per_budget(rows, METRICS[name])
        tried = self.validation
        return best_per_budget(rows, METRICS[name], tried[tried["run_id"].isin(rows["run_id"])])  # not of beaten rates

    def best_runs(self, name: str) -> pd.DataFrame:
        """The runs of each method's best size at each budget, all seeds."""
        keys = ["method", "flops_budget", *SIZE]
        return self._keep(("best runs", name), lambda: self.rows(name).merge(self.best_sizes(name)[keys], on=keys))

    def fitted_runs(self, name: str) -> pd.DataFrame:
        """The runs that laws are fitted to: like `best_runs`, but a size with fewer than MIN_SEEDS seeds stands for a method only
        where it has none with as many, since the best of several single runs is better than its size."""

        def find() -> pd.DataFrame:
            rows, keys = self.rows(name), ["method", "flops_budget", *SIZE]
            enough = rows.groupby(keys)["seed"].transform("nunique") >= MIN_SEEDS
            kept = rows[enough | ~enough.groupby([rows["method"], rows["flops_budget"]]).transform("any")]
            return kept.merge(self._best_of(kept, name)[keys], on=keys)

        return self._keep(("fitted runs", name), find)

    def samples(self, name: str, budget: float) -> dict[str, Sample]:
        """Per method its best size's values at a budget, one per seed, on the metric's scale of comparison."""

        def find() -> dict[str, Sample]:
            runs = self.best_runs(name)
            return {str(m): METRICS[name].sample(g) for m, g in runs[runs["flops_budget"] == budget].groupby("method")}

        return self._keep(("samples", name, budget), find)

    def values(self, name: str, budget: float) -> dict[str, Array]:
        """Per method the metric of its best size at a budget, one value per seed (n,)."""
        runs = self.best_runs(name)
        return {str(m): g[name].to_numpy(float) for m, g in runs[runs["flops_budget"] == budget].groupby("method")}

    def mean(self, name: str, budget: float, method: str) -> Interval | None:
        """The metric's mean over seeds, taken on its scale so that the interval stays possible; None for fewer than two seeds."""
        sample = self.samples(name, budget).get(method)
        found = None if sample is None else mean_interval(sample)
        return None if found is None else found.map(METRICS[name].unscaled)

    def fits(self, name: str) -> dict[str, ScalingFit]:
        """A fit, or what is missing for it, of each method."""
        metric = METRICS[name]

        def fit(mine: pd.DataFrame, method: str) -> ScalingFit:
            compute, seeds = mine["flops_budget"].to_numpy(float), mine["seed"].to_numpy(float)
            floor = metric.floor(mine)
            found = fit_scaling(method, compute, metric.shortfall(mine), seeds, floor=floor, num_draws=self.num_draws)
            passed = self._passed_over(name, mine) if found.law is not None else ""
            return replace(found, set_aside="; ".join(said for said in (found.set_aside, passed) if said))

        return self._keep(("fits", name), lambda: self._by_method(self.fitted_runs(name), fit))

    def _passed_over(self, name: str, mine: pd.DataFrame) -> str:
        """At which budgets a method's fit takes another size than looks best, as a sentence; empty for none."""
        keys = ["method", "flops_budget", *SIZE]
        both = mine[keys].drop_duplicates().merge(self.best_sizes(name)[keys], on=keys, how="left", indicator=True)
        budgets = ", ".join(format_number(budget) for budget in both[both["_merge"] == "left_only"]["flops_budget"])
        if not budgets:
            return ""
        return f"the fit takes the best of the sizes with {MIN_SEEDS} seeds where one with fewer looks better: {budgets}"

    def surfaces(self, name: str) -> dict[str, SurfaceFit]:
        """A fit over parameters and images of all runs, or what is missing for it, of each method."""

        def fit(mine: pd.DataFrame, method: str) -> SurfaceFit:
            budgets, sizes, images, seeds = (
                mine[column].to_numpy(float) for column in ("flops_budget", "num_params", "images_seen", "seed")
            )
            values = METRICS[name].shortfall(mine)
            return fit_surface(method, budgets, sizes, images, values, seeds, num_draws=self.num_draws)

        return self._keep(("surfaces", name), lambda: self._by_method(self.rows(name), fit))

    def minima(self, name: str) -> dict[str, list[IsoFlop]]:
        """The best size of each method at each budget by a parabola, or why there is none."""

        def fit(mine: pd.DataFrame, method: str) -> list[IsoFlop]:
            return [
                isoflop_minimum(
                    float(budget),
                    cell["num_params"].to_numpy(float),
                    METRICS[name].shortfall(cell),
                    num_draws=self.num_draws,
                )
                for budget, cell in mine.groupby("flops_budget")
            ]

        return self._keep(("minima", name), lambda: self._by_method(self.rows(name), fit))

    def paths(self, name: str) -> dict[str, tuple[OptimalPath, OptimalPath]]:
        """How the best size of each method and the images that it sees grow with compute, or why that cannot be said."""

        def fit(mine: pd.DataFrame, method: str) -> tuple[OptimalPath, OptimalPath]:
            values, budgets = METRICS[name].shortfall(mine), mine["flops_budget"].to_numpy(float)
            ladders = mine.groupby([*SIZE, "seed"]).ngroup().to_numpy()
            images = mine.groupby(["flops_budget", *SIZE])["images_seen"].transform("mean").to_numpy(float)
            size = optimal_path(
                "num_params", budgets, mine["num_params"].to_numpy(float), values, ladders, num_draws=self.num_draws
            )
            return size, optimal_path("images_seen", budgets, images, values, ladders, num_draws=self.num_draws)

        return self._keep(("paths", name), lambda: self._by_method(self.rows(name), fit))

    def _by_method(self, rows: pd.DataFrame, compute: Callable[[pd.DataFrame, str], T]) -> dict[str, T]:
        return {method: compute(rows[rows["method"] == method], method) for method in self.methods}

    def crossings(self, name: str) -> list[Crossing]:
        """Where every two fitted methods meet; nowhere for a metric that does not compare between methods."""
        if METRICS[name].compares != "everywhere":
            return []
        fits = [fit for fit in self.fits(name).values() if fit.law is not None]
        pairs = itertools.combinations(fits, 2)
        return self._keep(("crossings", name), lambda: [crossing(a, b) for a, b in pairs])

    def missing(self) -> str:
        """What keeps this table from scaling exponents; empty when nothing does for at least one method."""
        reasons = {method: lacking(g["flops_budget"].to_numpy(float)) for method, g in self.best_runs("fid").groupby("method")}
        return "" if not reasons or not all(reasons.values()) else next(iter(reasons.values()))


def analyse(frame: pd.DataFrame, num_draws: int = 1000, identity: Mapping[str, Any] | None = None) -> Analysis:
    """Prepare a table: rows of different protocols never meet, so the largest group stays and the others are named.

    Args:
        identity: what experiment.json says of the methods and the data, from which claims know what a method is; without it a
            method is its paradigm at default options.
    """
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
    off_plan = done[done["off_plan"].notna()]["run_id"].nunique() if "off_plan" in done else 0
    if off_plan:
        notes.append(f"{off_plan} runs trained other steps, or cost more or less per image, than planned: column off_plan")
    if done["flop_rule"].nunique() > 1:
        notes.append("runs are billed by different FLOP rules, whose budgets differ: column flop_rule")
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
    known = {
        str(m): traits(str(p), {}, [], None) for m, p in frame[["method", "paradigm"]].drop_duplicates().itertuples(index=False)
    }
    found = Analysis(frame, tuple(notes), num_draws, {**known, **method_traits(identity or {})})
    note = _chosen_on_test(found)
    return replace(found, notes=(*notes, note)) if note else found


def _chosen_on_test(analysis: Analysis) -> str:
    """The note that best sizes could not be chosen on validation rows; empty when they could, or there is nothing to choose."""
    rows = analysis.rows("fid")
    several = len(rows) and rows.groupby(["method", "flops_budget"])["num_params"].nunique().max() > 1
    if not several or criterion(analysis.validation, METRICS["fid"]) is not None:
        return ""
    return "no validation rows: the best size at a budget was chosen on the test rows that report it, which flatters it"


def leader(samples: Mapping[str, Sample], metric: Metric) -> tuple[str, str | None, Interval | None]:
    """The best method by its mean, the second, and the interval of its lead (positive when ahead)."""
    ranked = sorted(samples, key=lambda m: samples[m].mean, reverse=metric.higher_is_better)
    if len(ranked) < 2:
        return ranked[0], None, None
    lead = difference(samples[ranked[0]], samples[ranked[1]])
    if lead is None:
        return ranked[0], ranked[1], None
    return ranked[0], ranked[1], lead.interval if metric.higher_is_better else -lead.interval
