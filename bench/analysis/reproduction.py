"""Whether a sweep reproduces the committed one of the same experiment: its values against prediction intervals from there.

A cell is a method at a budget and at the size that the reference's validation rows chose there. The interval is that of a mean
over as many new seeds as the sweep has: the noise between seeds is pooled over all cells of the method that have several, on the
metric's scale of comparison. Where the reference has a fitted law, its prediction stands in `bench.analysis.forecast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bench.analysis.comparison import Analysis
from bench.analysis.intervals import Interval
from bench.analysis.metrics import METRICS, SIZE, Metric
from bench.analysis.scaling import pooled_deviation
from bench.analysis.welch import ERROR_RATE
from bench.progress import format_number

REPRODUCED = ("validation_loss", "fid", "prompt_accuracy")
"""Metrics that are compared."""
CELL = ["method", "flops_budget", *SIZE]


@dataclass(frozen=True, slots=True)
class Reproduced:
    """One metric of one method at one budget, here and in the reference."""

    metric: str
    method: str
    budget: float
    value: float
    """Mean over this sweep's seeds, taken on the metric's scale of comparison."""
    expected: Interval
    """The reference's mean, with the 95 % prediction interval of this sweep's."""

    @property
    def inside(self) -> bool:
        """Whether the sweep's value lies in the interval."""
        return self.expected.holds(self.value)


def reproduced(sweep: Analysis, reference: Analysis) -> list[Reproduced]:
    """Every cell that both have, of metrics and methods whose noise the reference knows; empty where the protocols differ."""
    if sweep.protocol != reference.protocol:
        return []
    found = []
    for name in REPRODUCED:
        metric, rows, best = METRICS[name], reference.rows(name), reference.best_runs(name)
        mine = dict(iter(sweep.rows(name).groupby(CELL)))
        for method in [method for method in reference.methods if method in sweep.methods]:
            noise = seed_deviation(metric, rows[rows["method"] == method])
            if noise is None:
                continue
            deviation, freedom = noise
            for key, cell in best[best["method"] == method].groupby(CELL):
                own = mine.get(key)
                if own is None:
                    continue
                reach = float(student.ppf(1 - ERROR_RATE / 2, freedom)) * deviation * np.sqrt(1 / len(cell) + 1 / len(own))
                middle = float(metric.scaled(cell).mean())
                ends = sorted(metric.unscaled(middle + sign * reach) for sign in (-1, 1))
                value = metric.unscaled(float(metric.scaled(own).mean()))
                expected = Interval(ends[0], metric.unscaled(middle), ends[1])
                found.append(Reproduced(name, method, float(key[1]), value, expected))
    return found


def seed_deviation(metric: Metric, rows: pd.DataFrame) -> tuple[float, int] | None:
    """Standard deviation between seeds of one method's rows on the metric's scale, pooled over cells, and its degrees of freedom;
    None where no cell has two seeds. It is at least the error that one value has at its seed."""
    cells = rows.groupby(CELL).ngroup().to_numpy()
    freedom = len(rows) - len(np.unique(cells))
    if freedom < 1:
        return None
    return max(pooled_deviation(metric.scaled(rows), cells), metric.sample(rows).error), freedom


def reproduction_summary(found: Sequence[Reproduced]) -> str:
    """The outcome in words: a reproduction, or the deviations by name."""
    outside = [each for each in found if not each.inside]
    said = f"{len(found) - len(outside)} of {len(found)} values lie in their 95 % prediction intervals"
    if not outside:
        return f"this sweep reproduces the reference: {said}"
    named = "; ".join(
        f"{METRICS[each.metric].label} of {each.method} at {format_number(each.budget)} FLOPs is {format_number(each.value)}, "
        f"not in {format_number(each.expected.low)} to {format_number(each.expected.high)}"
        for each in outside
    )
    return f"{said} ({ERROR_RATE * len(found):.0f} outside are expected by chance); deviations: {named}"
