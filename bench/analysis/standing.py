"""Who stands where at the top budget: each method's quality and cost with one sampler, what is best, and what the seeds cannot
tell from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS, SIZE, Metric
from bench.analysis.tuning import OPTIONS, SETTING, setting_text
from bench.analysis.welch import ERROR_RATE, difference, holm
from bench.results.table import TUNED

SPEEDS = {
    "latency_ms_b1_p50": "latency at batch 1, median, ms",
    "images_per_s": "throughput at the best batch, images/s",
}
"""Columns of how fast a method samples."""
COUNTED = "flops_per_sample"
"""A cost without noise: methods are tied where the ranges of their seeds' choices overlap."""
BESIDE = {
    metric.column: metric
    for metric in (
        Metric(column="coverage", label="coverage", higher_is_better=True, tuned_for="fid", scale="logit"),
        Metric(column=COUNTED, label="FLOPs per sample", higher_is_better=False, tuned_for="fid"),
        Metric(column="latency_ms_b1_p50", label="latency, ms", higher_is_better=False, tuned_for="fid"),
        Metric(column="images_per_s", label="images/s", higher_is_better=True, tuned_for="fid"),
    )
}
"""What is compared beside METRICS: a share, and costs."""
MEASURES = {
    **{name: METRICS[name] for name in ("prompt_accuracy", "prompt_accuracy_heldout", "clip_score", "fid")},
    **BESIDE,
}
"""The columns of a standing, in their order."""


Mark = Literal["best", "tied", "behind", "untested"]
"""Tied: the seeds do not tell it from the best. Untested: one of the two has a single seed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measure of one method over its seeds."""

    mean: float
    """Of the seeds."""
    low: float
    high: float
    num_seeds: int
    mark: Mark


@dataclass(frozen=True, slots=True)
class Place:
    """One method of a standing."""

    method: str
    size: str
    setting: str
    """Its sampler in words; where the seeds' choices differ, all of them."""
    run_ids: tuple[str, ...]
    cells: dict[str, Cell]


@dataclass(frozen=True, slots=True)
class Standing:
    """Every method at the top budget, its sampler chosen for one metric."""

    chosen_for: str
    budget: float
    columns: tuple[str, ...]
    """Of MEASURES those that any method has."""
    places: tuple[Place, ...]
    """Best mean of the first column first."""


def with_speed(analysis: Analysis, name: str) -> pd.DataFrame:
    """The top budget's best-size runs at the setting chosen for a metric, each with the speed of its weights at that cost.

    Speed is measured at one setting per run. Temperature and the scale of guidance change no cost, so that it holds for every
    setting with as many FLOPs per sample; other runs have none here.
    """
    runs, frame = analysis.best_runs(name), analysis.frame
    runs = runs[runs["flops_budget"] == runs["flops_budget"].max()]
    columns, keys = list(SPEEDS), ["run_id", COUNTED]
    measured = frame[frame["ema"].eq(True)].dropna(subset=columns)[[*keys, *columns]].drop_duplicates(keys)
    return runs.drop(columns=columns).merge(measured, on=keys, how="inner")


def standings(analysis: Analysis) -> list[Standing]:
    """A standing for each metric that samplers are chosen for and that the table has; none before a run has finished."""
    chosen = {metric for metrics in finished_metrics(analysis) for metric in metrics.split()}
    return [_standing(analysis, name) for name in TUNED if name in chosen and len(analysis.rows(name))]


def finished_metrics(analysis: Analysis) -> set[str]:
    """What the settings of finished test rows were chosen for, as the table writes it."""
    frame = analysis.frame
    return set(frame[(frame["status"] == "done") & (frame["split"] == "test")]["tuned_for"].dropna())


def _standing(analysis: Analysis, name: str) -> Standing:
    best = analysis.best_runs(name)
    top = best[best["flops_budget"] == best["flops_budget"].max()]
    fast = with_speed(analysis, name)[["run_id", *SPEEDS]]
    rows = top.drop(columns=list(SPEEDS)).merge(fast, on="run_id", how="left")
    groups = {method: rows[rows["method"] == method] for method in analysis.methods if (rows["method"] == method).any()}
    cells = {column: _cells(column, groups) for column in MEASURES}
    if cells["prompt_accuracy"] and name != "clip_score":
        cells["clip_score"] = {}  # stands for prompt following where nothing checks it
    columns = tuple(column for column, found in cells.items() if found)
    first = MEASURES[name]
    means = {method: cells[name][method].mean for method in groups}
    ranked = sorted(groups, key=lambda method: means[method], reverse=first.higher_is_better)
    return Standing(
        name,
        float(top["flops_budget"].max()),
        (name, *(column for column in columns if column != name)) if name in columns else columns,
        tuple(
            Place(
                method,
                _size(groups[method]),
                _settings(groups[method]),
                tuple(groups[method]["run_id"]),
                {column: cells[column][method] for column in columns if method in cells[column]},
            )
            for method in ranked
        ),
    )


def _cells(column: str, groups: dict[str, pd.DataFrame]) -> dict[str, Cell]:
    """One column of a standing, of the methods that have it."""
    measure = MEASURES[column]
    finite = {method: rows[np.isfinite(rows[column].astype(float))] for method, rows in groups.items()}
    samples = {method: measure.sample(rows) for method, rows in finite.items() if len(rows)}
    if not samples:
        return {}
    best = (max if measure.higher_is_better else min)(samples, key=lambda method: samples[method].mean)
    others = [method for method in samples if method != best]
    found = {method: difference(samples[best], samples[method]) for method in others}
    tested = [method for method in others if found[method] is not None]
    adjusted = dict(zip(tested, holm([d.p_value for d in found.values() if d is not None]), strict=True))

    def mark(method: str) -> Mark:
        if samples[method].mean == samples[best].mean:
            return "best"
        if column == COUNTED:
            return "behind" if finite[method][column].min() > finite[best][column].max() else "tied"
        if method not in adjusted:
            return "untested"
        return "behind" if adjusted[method] < ERROR_RATE else "tied"

    values = {method: finite[method][column].to_numpy(float) for method in samples}
    return {m: Cell(float(v.mean()), float(v.min()), float(v.max()), len(v), mark(m)) for m, v in values.items()}


def _size(rows: pd.DataFrame) -> str:
    width, depth = rows[SIZE].iloc[0]
    return f"width {width:g}, depth {depth:g}"


def _settings(rows: pd.DataFrame) -> str:
    """The seeds' samplers in words; where their choices differ, every value of an option."""
    if len(rows[SETTING].drop_duplicates()) == 1:
        return setting_text(rows[SETTING].iloc[0])
    texts = []
    for name in SETTING:
        found = rows.drop_duplicates(name).dropna(subset=name).sort_values(name)
        values = [setting_text(row[[name]]) for _, row in found.iterrows()]
        word = f"{OPTIONS.get(name, '')} "
        if values:
            texts.append(" / ".join([values[0], *(value.removeprefix(word) for value in values[1:])]))
    return f"{', '.join(texts)}, by seed"
