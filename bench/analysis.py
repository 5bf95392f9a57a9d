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

from bench.fit import (
    Array,
    Crossing,
    Interval,
    IsoFlop,
    ScalingFit,
    SurfaceFit,
    crossing,
    fit_scaling,
    fit_surface,
    isoflop_minimum,
    lacking,
)
from bench.results import finished_rows

T = TypeVar("T")
ORDER = ("diffusion", "next-token", "masked-token", "mar")
"""Built-ins come first, in this order, whichever methods a table holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A column that measures quality."""

    column: str
    label: str
    higher_is_better: bool
    tuned_for: str
    """Metric whose chosen setting is read."""
    share: bool = False
    """Whether it is a share of images: fitted as 1 - share, and compared by differences instead of ratios."""

    @property
    def error(self) -> str:
        """The column of its standard error at one training seed."""
        return f"{self.column}_se"

    def shortfall(self, rows: pd.DataFrame) -> Array:
        """A quantity that falls to 0 (or a floor) as quality grows, (n,): the metric itself, or 1 - share.

        A share of all N images counts as (N + 0.5) / (N + 1), so that its logarithm exists (Jeffreys' rule).
        """
        values = rows[self.column].to_numpy(float)
        if not self.share:
            return values
        num = rows["num_samples"].to_numpy(float)
        return np.asarray(1 - (values * num + 0.5) / (num + 1))


METRICS = {
    metric.column: metric
    for metric in (
        Metric(column="fid", label="FID", higher_is_better=False, tuned_for="fid"),
        Metric(column="kid", label="KID", higher_is_better=False, tuned_for="fid"),
        Metric(
            column="prompt_accuracy",
            label="prompt accuracy",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
            share=True,
        ),
        Metric(
            column="prompt_accuracy_heldout",
            label="prompt accuracy, held-out pairs",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
            share=True,
        ),
        Metric(
            column="clip_score",
            label="CLIP score (cosine)",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
        ),
        Metric(column="fd_dinov2", label="Frechet distance", higher_is_better=False, tuned_for="fid"),
    )
}
JUDGES = {
    "fid": "fid_network",
    "kid": "fid_network",
    "prompt_accuracy": "prompt_judge",
    "prompt_accuracy_heldout": "prompt_judge",
    "clip_score": "clip_checkpoint",
    "fd_dinov2": "dinov2_network",
}
"""The column that names what a metric was measured with."""


def judge_text(name: str) -> str:
    """What measured a metric, for an axis: its name without the hash of its weights."""
    for start, text in (("shapes-clip", "suite's CLIP"), ("inception-v3", "Inception-v3"), ("exact verifier", "exact verifier")):
        if name.startswith(start):
            return text
    return "suite's classifier" if "-classifier-" in name else name.split("@")[0].split(",")[0]


FITTED = ("fid", "kid", "prompt_accuracy")


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Methods of a table, built-ins first."""
    found = list(dict.fromkeys(frame["method"]))
    return [m for m in ORDER if m in found] + sorted(m for m in found if m not in ORDER)


def best_per_budget(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """For each method and budget, the size whose seed mean is best: columns value, error, num_seeds, num_params, images_seen."""
    cells = (
        rows.dropna(subset=[metric.column])
        .groupby(["method", "flops_budget", "width", "depth"], as_index=False)
        .agg(
            value=(metric.column, "mean"),
            error=(metric.error, "mean"),
            num_seeds=("seed", "nunique"),
            num_params=("num_params", "first"),
            images_seen=("images_seen", "mean"),
        )
    )
    ranked = cells.sort_values("value", ascending=not metric.higher_is_better, kind="stable")
    return ranked.groupby(["method", "flops_budget"], as_index=False).first().sort_values(["method", "flops_budget"])


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
        """Finished test rows with a finite value of the metric, one per run."""
        metric = METRICS[name]
        found = finished_rows(self.frame, metric.tuned_for, ema=ema)
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
