"""Sweeps of one protocol side by side: how each cell of one differs from the same cell of another, and what differs between the
experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.analysis.comparison import Analysis
from bench.analysis.intervals import Interval
from bench.analysis.metrics import METRICS
from bench.analysis.welch import ERROR_RATE, difference, holm

ABSENT = "absent"
"""What stands for a value that one of two experiments lacks."""


@dataclass(frozen=True, slots=True)
class CellDifference:
    """One metric of one method at one budget in two sweeps, each at its best size."""

    metric: str
    method: str
    budget: float
    first: float
    """Mean over the seeds of the first sweep."""
    second: float
    num_seeds: tuple[int, int]
    effect: Interval | None
    """Of the second over the first as the metric compares (ratio, odds ratio, difference), with its 95 % interval; None where
    one of them has a single seed or there is no noise."""
    p_value: float
    """Holm-corrected over all cells of the metric; NaN where there is no interval."""

    @property
    def said(self) -> str:
        """Whether the second is better or worse, in words."""
        if self.effect is None:
            return "equal" if self.first == self.second else "no interval"
        if not self.p_value < ERROR_RATE:
            return "undecided"
        higher = self.second > self.first
        return "better" if higher == METRICS[self.metric].higher_is_better else "worse"


def check_one_protocol(sweeps: Mapping[str, Analysis]) -> str:
    """The protocol that all sweeps (by name) share.

    Raises:
        ValueError: naming two that differ, or one in which nothing has finished.
    """
    known: dict[str, str] = {}
    for name, analysis in sweeps.items():
        if not analysis.protocol:
            raise ValueError(f"{name} has no finished run; there is nothing to compare yet")
        known[name] = analysis.protocol
    (first, protocol), *others = known.items()
    for name, other in others:
        if other != protocol:
            raise ValueError(
                f"{name} has protocol {other}, {first} has {protocol}: other data, judges or evaluation settings, so "
                "their numbers do not compare; give sweeps of one protocol"
            )
    return protocol


def cell_differences(first: Analysis, second: Analysis) -> list[CellDifference]:
    """Every (metric, method, budget) that both sweeps have; p values corrected within each metric."""
    found = []
    for name in METRICS:
        cells = list(_cells(first, second, name))
        tested = [cell for cell in cells if np.isfinite(cell.p_value)]
        adjusted = iter(holm([cell.p_value for cell in tested]))
        found += [replace(cell, p_value=next(adjusted)) if np.isfinite(cell.p_value) else cell for cell in cells]
    return found


def _cells(first: Analysis, second: Analysis, name: str) -> Iterator[CellDifference]:
    metric = METRICS[name]
    for budget in [budget for budget in first.budgets if budget in second.budgets]:
        a, b = first.samples(name, budget), second.samples(name, budget)
        values = [analysis.values(name, budget) for analysis in (first, second)]
        for method in [method for method in first.methods if method in a and method in b]:
            lead = difference(b[method], a[method])
            one, two = (float(each[method].mean()) for each in values)
            effect = None if lead is None else lead.interval.map(metric.effect_size)
            counts = (len(a[method].values), len(b[method].values))
            yield CellDifference(
                name, method, float(budget), one, two, counts, effect, float("nan") if lead is None else lead.p_value
            )


def only_in_one(first: Analysis, second: Analysis) -> tuple[list[str], list[str]]:
    """Methods that the first alone has, and those that the second alone has."""
    return (
        [method for method in first.methods if method not in second.methods],
        [method for method in second.methods if method not in first.methods],
    )


def experiment_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What two experiment.json say differently: path, and both values; runs follow from the rest and are left out."""
    a, b = (dict(_leaves({key: value for key, value in each.items() if key != "runs"})) for each in (first, second))
    return [
        (path, a.get(path, ABSENT), b.get(path, ABSENT)) for path in sorted(a.keys() | b.keys()) if a.get(path) != b.get(path)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The values inside nested objects, by their path."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for place, each in enumerate(value):
            yield from _leaves(each, f"{path}[{place}]")
    else:
        yield path, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
