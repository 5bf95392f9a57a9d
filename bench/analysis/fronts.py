"""Fronts of inference: what quality each number of FLOPs per image buys, over sizes, sampler settings and the best of n samples.

A strategy is a size, a setting, and how many samples are drawn for each image that is kept. Strategies are chosen on validation
captions: those that no other one of the method beats in both cost and quality, by the means over seeds. What is reported of
them is measured on test captions.

A table of strategies has one row per run, strategy and split: the columns of STRATEGY and GROUP (bench/results/strategies.py),
`run_id`, `seed`, `split`, `flops` (per image that is kept), `num_samples`, and `fid` and `prompt_accuracy` with their standard
errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.intervals import Interval
from bench.analysis.laws import Array
from bench.analysis.metrics import METRICS, Metric, in_order
from bench.analysis.welch import Sample, mean_interval
from bench.results.strategies import GROUP, KEEPERS, NO_CHOICE, STRATEGY

MEASURED = ("fid", "prompt_accuracy")
"""Metrics that have fronts."""


@dataclass(frozen=True, slots=True)
class Point:
    """A strategy on a front."""

    strategy: dict[str, Any]
    """Its columns of STRATEGY."""
    cost: float
    """FLOPs per image that is kept: mean over seeds."""
    validation: pd.DataFrame
    """Its rows on validation captions, one per seed, which put it here."""
    test: pd.DataFrame
    """Its rows on test captions, one per seed; empty before they are measured."""

    def value(self, metric: Metric) -> float:
        """The metric on test captions, mean over seeds; NaN before it is measured."""
        return float(self.test[metric.column].mean())

    def interval(self, metric: Metric) -> Interval | None:
        """Its 95 % t interval over seeds; None for fewer than two."""
        found = mean_interval(metric.sample(self.test)) if len(self.test) > 1 else None
        return None if found is None else found.map(metric.unscaled)

    @property
    def label(self) -> str:
        """In a figure: how many samples, or else how many steps; empty where a method has no steps."""
        candidates, steps = self.strategy["candidates"], self.strategy["sampler_steps"]
        if candidates != 1:
            return f"n={candidates:g}"
        return "" if pd.isna(steps) else f"{steps:g}"


@dataclass(frozen=True, slots=True)
class Front:
    """What one method makes of inference compute after one training budget."""

    method: str
    budget: float
    """Training FLOPs."""
    keeper: str
    """NO_CHOICE, or who chose among n samples where n > 1."""
    metric: Metric
    points: tuple[Point, ...]
    """By ascending cost."""

    def at(self, flops: float) -> Point | None:
        """The best strategy that costs no more; None where all cost more."""
        return next((point for point in reversed(self.points) if point.cost <= flops), None)

    def gain(self) -> tuple[float, Interval | None] | None:
        """What ten times the FLOPs per image buy, as the metric's effect (a ratio of distances, a ratio of odds), with its
        interval over seeds where there are several: the slope of the least-squares line through all points on test captions, on
        the metric's scale against log10 FLOPs. None for fewer than two points that were measured."""
        rows = pd.concat([point.test.assign(place=math.log10(point.cost)) for point in self.points])
        slopes = []
        for _, seed in rows.groupby("seed"):
            if seed["place"].nunique() > 1:
                slopes.append(float(np.polyfit(seed["place"].to_numpy(float), self.metric.scaled(seed), 1)[0]))
        if not slopes:
            return None
        sample = Sample(np.array(slopes))
        interval = mean_interval(sample)
        effect = self.metric.effect_size
        return effect(sample.mean), None if interval is None else interval.map(effect)


def pareto(cost: Array, quality: Array, *, higher_is_better: bool) -> list[int]:
    """Indices, by ascending cost, of the points (n,) that no other beats on both axes."""
    x, y = cost, -quality if higher_is_better else quality
    front = [
        i
        for i in range(len(x))
        if not any((x[j] <= x[i]) & (y[j] <= y[i]) & ((x[j] < x[i]) | (y[j] < y[i])) for j in range(len(x)))
    ]
    return sorted(front, key=lambda i: float(cost[i]))


def fronts(table: pd.DataFrame, name: str, keeper: str = NO_CHOICE) -> list[Front]:
    """The front of each method and training budget in a metric of METRICS, of the strategies of one keeper and those that choose
    nothing. A strategy counts where every seed has it."""
    metric = METRICS[name]
    rows = table[table["keeper"].isin([NO_CHOICE, keeper])].dropna(subset=[name])
    validation, test = rows[rows["split"] == "validation"], rows[rows["split"] == "test"]
    found = []
    for (method, budget), mine in validation.groupby(GROUP):
        every = [
            group for _, group in mine.groupby(STRATEGY, dropna=False, sort=False) if set(group["seed"]) == set(mine["seed"])
        ]
        cost = np.array([group["flops"].mean() for group in every])
        quality = np.array([metric.sample(group).mean for group in every])
        tested = test[(test["method"] == method) & (test["flops_budget"] == budget)]
        measured = {_key(row): group for row, group in tested.groupby(STRATEGY, dropna=False, sort=False)}
        points = []
        for place in pareto(cost, quality, higher_is_better=metric.higher_is_better):
            strategy = {str(column): every[place][column].iloc[0] for column in STRATEGY}
            again = measured.get(_key(strategy.values()), tested.iloc[:0])
            points.append(Point(strategy, float(cost[place]), every[place], again))
        found.append(Front(str(method), float(budget), keeper, metric, tuple(points)))
    order = in_order(front.method for front in found)
    return sorted(found, key=lambda front: (front.budget, order.index(front.method)))


def _key(values: Iterable[Any]) -> tuple[Any, ...]:
    """A strategy as a key of a dictionary, in which a missing value equals itself."""
    return tuple(None if pd.isna(value) else value for value in values)


def gains(table: pd.DataFrame, keepers: tuple[str, ...] = (NO_CHOICE, *KEEPERS)) -> pd.DataFrame:
    """For each training budget, metric, keeper and method: the ends of its front on test captions (cheapest_flops,
    cheapest_value, dearest_flops, dearest_value) and what a factor of ten in FLOPs buys (`effect` says as what: gain, gain_low,
    gain_high)."""
    rows = []
    for name in MEASURED:
        for keeper in keepers:
            for front in fronts(table, name, keeper):
                gain = front.gain()
                first, last = front.points[0], front.points[-1]
                interval = None if gain is None else gain[1]
                rows.append(
                    {"flops_budget": front.budget, "metric": name, "keeper": keeper, "method": front.method}
                    | {"num_points": len(front.points), "num_seeds": first.test["seed"].nunique()}
                    | {"cheapest_flops": first.cost, "cheapest_value": first.value(front.metric)}
                    | {"dearest_flops": last.cost, "dearest_value": last.value(front.metric)}
                    | {"effect": front.metric.effect, "gain": math.nan if gain is None else gain[0]}
                    | _ends("gain", interval)
                )
    return pd.DataFrame(rows)


def leaders(table: pd.DataFrame, keepers: tuple[str, ...] = (NO_CHOICE, *KEEPERS), per_decade: int = 2) -> pd.DataFrame:
    """Who is best at each inference cost: for each training budget, metric, keeper and cost on a grid of so many per decade, the
    strategy that each method would take (chosen on validation captions), its value on test captions with its interval over seeds
    (low, high) and its error at one seed, and `rank` among the methods by that value, 1 for the best."""
    costs = table["flops"].to_numpy(float)
    low, high = (math.ceil(per_decade * math.log10(end)) for end in (costs.min(), costs.max()))
    rows = []
    for name in MEASURED:
        for keeper in keepers:
            for front in fronts(table, name, keeper):
                for place in range(low, high + 1):
                    flops = 10 ** (place / per_decade)
                    point = front.at(flops)
                    if point is None or point.test.empty:
                        continue
                    error = float(point.test[front.metric.error].mean())
                    rows.append(
                        {"flops_budget": front.budget, "metric": name, "keeper": keeper, "flops_at_most": flops}
                        | {"method": front.method, **point.strategy, "flops": point.cost, "value": point.value(front.metric)}
                        | {"error": error, **_ends("value", point.interval(front.metric))}
                        | {"sign": -1 if front.metric.higher_is_better else 1}
                    )
    found = pd.DataFrame(rows)
    if found.empty:
        return found
    keys = ["flops_budget", "metric", "keeper", "flops_at_most"]
    found["rank"] = (found["sign"] * found["value"]).groupby([found[key] for key in keys]).rank(method="min").astype(int)
    return found.drop(columns="sign").sort_values([*keys, "rank"], ignore_index=True)


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    """The columns of an interval's ends, NaN where there is none."""
    low, high = (math.nan, math.nan) if interval is None else (interval.low, interval.high)
    return {f"{name}_low": low, f"{name}_high": high}
