"""What a claim rests on: for two methods an estimate that is positive when the first one does what the claim says of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.intervals import Interval
from bench.analysis.matched_cost import cheapest_points, confirmed, matched_quality
from bench.analysis.metrics import METRICS
from bench.analysis.welch import Difference, Sample, difference
from bench.progress import format_number

MIN_TREND_BUDGETS = 3
ABOVE_FLOOR = 2.0
"""Standard errors by which a mean must lie above the floor for its logarithm to say anything."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a table says of one pair of methods."""

    first: str
    second: str
    text: str
    """The numbers, or what is missing."""
    found: Difference | None = None
    """On a scale where 0 is no effect and positive is as claimed; None where nothing can be estimated."""


Estimate = Callable[[Analysis, str, str], Effect]


def _said(found: Difference | None, map_back: Callable[[float], float], kind: str, why: str) -> str:
    if found is None:
        return f", no interval: {why}"
    shown = found.interval.map(map_back)
    if shown.low == shown.high:
        return f", {kind} {format_number(shown.value)}, counted"
    ends = f"[{format_number(shown.low)}, {format_number(shown.high)}]"
    return f", {kind} {format_number(shown.value)} {ends}, p = {format_number(found.p_value, 2)}"


def _seeds(samples: list[Sample]) -> str:
    """Why two samples have no interval."""
    return "one seed" if min(len(s.values) for s in samples) < 2 else "the seeds do not differ"


def advantage(name: str, which: int) -> Estimate:
    """How much better a is than b at the top (-1) or the lowest (0) budget."""

    def estimate(analysis: Analysis, a: str, b: str) -> Effect:
        metric, budget = METRICS[name], analysis.budgets[which]
        samples = analysis.samples(name, budget)
        if a not in samples or b not in samples:
            return Effect(a, b, f"{a} or {b} has no finished run with {name} at {format_number(budget)} FLOPs")
        found = difference(samples[a], samples[b])
        means = [format_number(metric.unscaled(samples[m].mean)) for m in (a, b)]
        text = f"{name} {means[0]} ({a}) and {means[1]} ({b}) at {format_number(budget)} FLOPs"
        text += _said(found, metric.effect_size, metric.effect, _seeds([samples[a], samples[b]]))
        return Effect(a, b, text, found if metric.higher_is_better else _turned(found))

    return estimate


def _turned(found: Difference | None) -> Difference | None:
    return None if found is None else Difference(-found.interval, found.p_value)


def catches_up(analysis: Analysis, a: str, b: str) -> Effect:
    """Whether a's FID above the floor falls faster with compute than b's, over all budgets where both are above it.

    The slope of each seed's own ladder is one value, so that it does not matter how far rungs of one trunk share their noise.
    """
    excess, budgets = _above_floor(analysis, a, b)
    if len(budgets) < MIN_TREND_BUDGETS:
        return Effect(
            a, b, f"a trend needs {MIN_TREND_BUDGETS} budgets where both FIDs are above the floor; there are {len(budgets)}"
        )
    ratios = [excess[a].loc[c].mean() - excess[b].loc[c].mean() for c in budgets]
    shown = ", ".join(f"{format_number(10.0**r)} at {format_number(c)}" for r, c in zip(ratios, budgets, strict=True))
    text = f"FID above the floor, {a} over {b}: {shown} FLOPs"
    slopes = {}
    for method in (a, b):
        ladders = excess[method].loc[budgets].dropna(axis=1)
        slopes[method] = np.polyfit(np.log10(budgets), ladders.to_numpy(), 1)[0] if ladders.shape[1] else np.empty(0)
    if min(len(s) for s in slopes.values()) < 2:
        return Effect(a, b, text + ", no interval: fewer than two seeds have all these budgets")
    found = difference(Sample(slopes[b]), Sample(slopes[a]))
    text += _said(found, lambda v: 10.0**v, "a decade of compute divides the ratio by", "the seeds do not differ")
    crossings = analysis.crossings("fid") if any(fit.law is not None for fit in analysis.fits("fid").values()) else []
    text += "".join(f"; {c}" for c in crossings if {c.first, c.second} == {a, b})
    return Effect(a, b, text, found)


def _above_floor(analysis: Analysis, a: str, b: str) -> tuple[dict[str, pd.DataFrame], list[float]]:
    """Per method log10 of FID less its floor, a row per budget and a column per seed; and the budgets at which both are above."""
    excess, shared = {}, set(analysis.budgets)
    runs = analysis.best_runs("fid")
    for method in (a, b):
        mine = runs[runs["method"] == method]
        floor = METRICS["fid"].floor(mine)
        level = 0.0 if floor is None else floor.value
        grouped = mine.assign(above=mine["fid"] - level).groupby("flops_budget")
        error = grouped["fid_se"].mean().fillna(0.0)
        clear = (grouped["above"].mean() > ABOVE_FLOOR * error) & (grouped["above"].min() > 0)
        shared &= {float(c) for c in clear.index[clear]}
        table = mine.assign(above=np.log10(np.maximum(mine["fid"] - level, 1e-300)))
        excess[method] = table.pivot_table(index="flops_budget", columns="seed", values="above")
    return excess, sorted(shared)


def cheaper(column: str, *, counted: bool, more: bool = False) -> Estimate:
    """Whether a needs less of a cost than b (with `more`: gives more) at the top budget and at a quality that both reach.

    Each seed's point is the cheapest size and setting that reaches the quality on validation rows.
    """

    def estimate(analysis: Analysis, a: str, b: str) -> Effect:
        level = matched_quality(analysis, a, b, column)
        if level is None:
            return Effect(a, b, f"{a} or {b} has no {column} with a quality on validation rows")
        metric, quality = level
        points = {m: cheapest_points(analysis, m, metric, quality, column, more=more) for m in (a, b)}
        samples = {m: Sample(p.costs, p.grid_error) for m, p in points.items()}
        means = [format_number(math.exp(samples[m].mean)) for m in (a, b)]
        text = (
            f"{column} {means[0]} ({a}) and {means[1]} ({b}) at {metric.column} {format_number(quality)} on validation conditions"
        )
        doubt = "; ".join(filter(None, (confirmed(p, metric, quality) for p in points.values())))
        found = difference(samples[a], samples[b])
        if found is None and counted and min(len(s.values) for s in samples.values()) > 1:
            gap = samples[a].mean - samples[b].mean
            found = Difference(Interval(gap, gap, gap), 0.0)
        text += _said(found, math.exp, "ratio", _seeds(list(samples.values())))
        if doubt:
            return Effect(a, b, f"{text}; not confirmed on test: {doubt}")
        return Effect(a, b, text, found if more else _turned(found))

    return estimate
