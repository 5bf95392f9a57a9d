"""Costs of sampling at matched quality: the cheapest size and setting that reaches it on validation conditions, seed by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.laws import Array
from bench.analysis.metrics import METRICS, SIZE, Metric

SETTING = ["sampler_steps", "guidance", "temperature", "sampler_options"]


@dataclass(frozen=True, slots=True)
class Points:
    """A method's cheapest points, one per seed."""

    method: str
    costs: Array  # (n,), logarithms
    grid_error: float
    """Standard error of a log cost that is read off a grid of settings: uniform between this point and the next. All seeds share
    the grid, so that it does not fall with their number; scaled by the root of that number for `Sample`."""
    on_test: pd.DataFrame
    """The quality of these points on test conditions, where it was measured."""


def points_of(analysis: Analysis, metric: Metric, column: str) -> pd.DataFrame:
    """Every size and setting of the top-budget runs with its validation quality and cost: columns method, seed, quality, cost and
    on_test, where the same point was sampled on test conditions.

    A cost that only test rows measure (latency, throughput) is theirs.
    """
    keys = ["run_id", *SETTING]
    top = analysis.validation[analysis.validation["flops_budget"] == analysis.budgets[-1]]
    top = top[top["run_id"].isin(analysis.rows(metric.column)["run_id"])]
    frame = analysis.frame
    test = frame[(frame["status"] == "done") & (frame["split"] == "test") & (frame["ema"] == True)]  # noqa: E712
    test = test[[*keys, column, metric.column]].rename(columns={column: "measured", metric.column: "on_test"})
    rows = top[["method", "seed", "num_samples", *SIZE, *keys, column, metric.column]]
    rows = rows.rename(columns={column: "cost", metric.column: "quality"})
    absent = {"sampler_options": "", "sampler_steps": -1.0, "guidance": -1.0, "temperature": -1.0}
    rows, test = rows.fillna(absent), test.fillna(absent)
    test = test.sort_values("measured").drop_duplicates(keys)
    joined = rows.merge(test, on=keys, how="left")
    joined["cost"] = joined["cost"].fillna(joined["measured"])
    return joined.dropna(subset=["cost", "quality"])


def matched_quality(analysis: Analysis, a: str, b: str, column: str) -> tuple[Metric, float] | None:
    """The best quality that every seed of both methods reaches, and its metric: prompt accuracy, or FID where there is none, or
    where one of them follows no prompt, since every setting reaches an accuracy of 0."""
    for name in ("prompt_accuracy", "fid"):
        metric = METRICS[name]
        points = points_of(analysis, metric, column)
        best = points[points["method"].isin([a, b])].groupby(["method", "seed"])["quality"]
        reached = best.max() if metric.higher_is_better else best.min()
        if not {a, b} <= set(reached.index.get_level_values(0)):
            continue
        level = float(reached.min() if metric.higher_is_better else reached.max())
        if level > 0:
            return metric, level
    return None


def cheapest_points(analysis: Analysis, method: str, metric: Metric, quality: float, column: str, *, more: bool) -> Points:
    """Each seed's cheapest point (with `more`: the one that gives most) at or above a quality."""
    points = points_of(analysis, metric, column)
    mine = points[points["method"] == method]
    sign = -1.0 if more else 1.0
    costs, steps, chosen = [], [], []
    for _, seed in mine.groupby("seed"):
        reaches = seed["quality"] >= quality if metric.higher_is_better else seed["quality"] <= quality
        log_cost = sign * np.log(seed["cost"])
        best = log_cost[reaches].idxmin()
        others = log_cost.to_numpy()
        nearer, farther = others[others < log_cost[best] - 1e-9], others[others > log_cost[best] + 1e-9]
        step = log_cost[best] - nearer.max() if len(nearer) else farther.min() - log_cost[best] if len(farther) else 0.0
        costs.append(sign * log_cost[best])
        steps.append(float(step))
        chosen.append(seed.loc[best])
    error = float(np.mean(steps)) / math.sqrt(12) * math.sqrt(len(costs))
    return Points(method, np.array(costs), error, pd.DataFrame(chosen))


def confirmed(points: Points, metric: Metric, quality: float) -> str:
    """Why test conditions do not confirm a method's accuracy; empty when they do, or when none of its points was sampled there.

    A point is refused when its accuracy on test conditions is below the level by more than two standard errors of the validation
    rows, which chose it. FIDs of the two do not compare, since FID falls with the number of images.
    """
    known = points.on_test.dropna(subset=["on_test"])
    if known.empty or not metric.share:
        return ""
    mean, num = float(known["on_test"].mean()), float(known["num_samples"].iloc[0])
    reach = 2 * math.sqrt(max(quality * (1 - quality), 0.25 / num) / num)
    return f"{points.method} has {metric.column} {mean:.3g} there" if quality - mean > reach else ""
