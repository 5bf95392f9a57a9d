"""How each method was tuned: what was tried, what was chosen, and which choice lies at the edge of what was tried.

A choice at an edge says that the range was too narrow: the method might do better outside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.laws import Array
from bench.analysis.metrics import methods_of
from bench.analysis.rates import learning_rate_curves, trials
from bench.progress import format_number
from bench.results.table import TUNED

SETTING = ["guidance", "temperature", "sampler_steps", "sampler_options"]
"""Columns of a sampler setting."""
OPTIONS = {"guidance": "guidance", "temperature": "temperature", "sampler_steps": "sampler steps"}
"""Its columns that hold numbers, in words."""
NO_GUIDANCE = 1.0
"""The natural end of guidance: less would steer away from the condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCurve:
    """Validation metric of one method against its learning rates, each at the best of the same sampler settings."""

    method: str
    rates: Array
    """(k,) ascending."""
    values: Array
    """(k,) mean over seeds."""
    runs: pd.DataFrame
    """One row per run: learning_rate, seed, value."""
    best: float
    """The rate with the best mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A choice at the edge of what was tried."""

    method: str
    metric: str
    option: str
    value: float
    tried: tuple[float, ...]
    """Ascending."""
    share: tuple[int, int]
    """How many runs choose it, of how many."""

    @property
    def end(self) -> str:
        """Which end of the range it is."""
        return "lowest" if self.value == self.tried[0] else "highest"


def setting_text(row: pd.Series) -> str:
    """The columns of a sampler setting that a row has, in words."""
    named = {name: row[name] for name in SETTING if name in row.index and pd.notna(row[name])}
    texts = [f"{OPTIONS[name]} {format_number(value)}" for name, value in named.items() if name in OPTIONS]
    return ", ".join(texts + _option_texts(json.loads(named.get("sampler_options", "{}"))))


def _option_texts(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Options of a sampler and of what it holds, such as "head_options steps 5"."""
    found = []
    for name, value in options.items():
        found += _option_texts(value, f"{prefix}{name} ") if isinstance(value, dict) else [f"{prefix}{name} {value}"]
    return found


def validation_rows(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Finished validation rows with a finite value of the metric, one per run and sampler setting."""
    rows = frame[(frame["status"] == "done") & (frame["split"] == "validation")]
    return rows[np.isfinite(rows[name].astype(float))]


def tried_rows(analysis: Analysis, name: str) -> pd.DataFrame:
    """Validation rows of each method's best-size runs at the top budget: what its setting was chosen from."""
    best = analysis.best_runs(name)
    top = best[best["flops_budget"] == best["flops_budget"].max()]
    return validation_rows(analysis.frame, name).merge(top[["run_id"]], on="run_id")


def rate_curves(search: pd.DataFrame, name: str) -> list[RateCurve]:
    """A learning-rate search's curves for a criterion, at its top budget and each method's smallest size."""
    curves, runs = learning_rate_curves(search), trials(search)
    found = []
    for method, mine in curves[curves["criterion"] == name].groupby("method", sort=False):
        mine = mine[mine["flops_budget"] == mine["flops_budget"].max()]
        curve = mine[mine["width"] == mine["width"].min()].sort_values("learning_rate")
        keys = ["method", "width", "depth", "flops_budget", "criterion"]
        found.append(
            RateCurve(
                method=str(method),
                rates=curve["learning_rate"].to_numpy(float),
                values=curve["value"].to_numpy(float),
                runs=runs.merge(curve[keys].drop_duplicates(), on=keys)[["learning_rate", "seed", "value"]],
                best=float(curve[curve["is_best"]]["learning_rate"].iloc[0]),
            )
        )
    return found


def rate_edges(search: pd.DataFrame, name: str) -> list[Edge]:
    """Methods whose best learning rate for a metric is the lowest or the highest tried."""
    return [
        Edge(
            method=curve.method,
            metric=name,
            option="learning rate",
            value=curve.best,
            tried=tuple(float(rate) for rate in curve.rates),
            share=(len(curve.runs[curve.runs["learning_rate"] == curve.best]),) * 2,
        )
        for curve in rate_curves(search, name)
        if curve.best in (curve.rates[0], curve.rates[-1])
    ]


def setting_edges(analysis: Analysis) -> list[Edge]:
    """Sampler options for which at least half of a method's runs choose an end of the range, per metric chosen for."""
    frame = analysis.frame
    chosen = frame[(frame["status"] == "done") & (frame["split"] == "test") & frame["ema"].eq(True)]
    tried = frame[(frame["status"] == "done") & (frame["split"] == "validation")]
    found = []
    for name in TUNED:
        is_chosen = pd.Series([name in str(names).split() for names in chosen["tuned_for"]], index=chosen.index, dtype=bool)
        mine = chosen[is_chosen]
        for method in methods_of(mine):
            runs, grid = mine[mine["method"] == method], tried[tried["method"] == method]
            for option in OPTIONS:
                values = tuple(sorted(float(value) for value in grid[option].dropna().unique()))
                if len(values) < 2:
                    continue
                ends = [end for end in (values[0], values[-1]) if (option, end) != ("guidance", NO_GUIDANCE)]
                for end in ends:
                    share = (int((runs[option] == end).sum()), len(runs))
                    if 2 * share[0] >= share[1]:
                        edge = Edge(method=method, metric=name, option=OPTIONS[option], value=end, tried=values, share=share)
                        found.append(edge)
    return found


def settings_tried(frame: pd.DataFrame) -> dict[str, int]:
    """How many sampler settings each method's runs were tried at on validation conditions."""
    rows = frame[(frame["status"] == "done") & (frame["split"] == "validation")]
    counts = rows.groupby(["method", "run_id"]).size().groupby("method").max()
    return {method: int(counts[method]) for method in methods_of(rows)}


def rates_tried(search: pd.DataFrame) -> dict[str, int]:
    """How many learning rates each method was tried at."""
    rows = search[search["status"] == "done"]
    counts = rows.groupby("method")["learning_rate"].nunique()
    return {method: int(counts[method]) for method in methods_of(rows)}


def rates_used(analysis: Analysis, name: str) -> dict[str, list[float]]:
    """The learning rates of each method's smallest size in the rows of a metric, ascending."""
    rows = analysis.rows(name)
    smallest = rows[rows["num_params"] == rows.groupby("method")["num_params"].transform("min")]
    return {
        str(method): sorted(float(rate) for rate in rates.unique())
        for method, rates in smallest.groupby("method")["learning_rate"]
    }
