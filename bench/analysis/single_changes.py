"""What one change of a method does: pairs of methods that are alike in everything but order, attention, tokens per step, loss or
autoencoder."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from bench.analysis.comparison import Analysis
from bench.analysis.intervals import Interval
from bench.analysis.metrics import in_order
from bench.analysis.welch import ERROR_RATE, difference, holm

CHANGEABLE = ("order", "attention", "tokens_per_step", "loss", "autoencoder")
"""Traits (bench/analysis/traits.py) that two methods may differ in."""
METRIC = "fid"


@dataclass(frozen=True, slots=True)
class Change:
    """Two methods that differ in one thing, and what this does to FID at a budget."""

    budget: float
    first: str
    second: str
    trait: str
    """Of CHANGEABLE."""
    before: str
    """What it is in the first method."""
    after: str
    ratio: Interval
    """FID of the second method over that of the first, with its 95 % interval over seeds."""
    p_value: float
    """After Holm's correction over all changes of the table."""

    @property
    def is_established(self) -> bool:
        """Whether chance is ruled out."""
        return self.p_value < ERROR_RATE

    @property
    def what(self) -> str:
        """The trait and its two values, in words."""
        return f"{self.trait.replace('_', ' ')}: {self.before} → {self.after}"


def single_changes(analysis: Analysis) -> list[Change]:
    """Every such pair at every budget, by trait; those without an interval (one seed) are left out."""
    names = [name for name in in_order(analysis.methods) if set(CHANGEABLE) <= set(analysis.traits.get(name, {}))]
    pairs = {(a, b): _changed(analysis, a, b) for a, b in itertools.combinations(names, 2)}
    single = {pair: changed[0] for pair, changed in pairs.items() if len(changed) == 1}
    found = [
        (budget, a, b, seen)
        for budget in analysis.budgets
        for samples in [analysis.samples(METRIC, budget)]
        for a, b in sorted(single, key=lambda pair: CHANGEABLE.index(single[pair]))
        if a in samples and b in samples and (seen := difference(samples[b], samples[a])) is not None
    ]
    adjusted = holm([seen.p_value for *_, seen in found])
    return [
        Change(
            budget=budget,
            first=a,
            second=b,
            trait=single[a, b],
            before=analysis.traits[a][single[a, b]],
            after=analysis.traits[b][single[a, b]],
            ratio=seen.interval.map(math.exp),
            p_value=p_value,
        )
        for (budget, a, b, seen), p_value in zip(found, adjusted, strict=True)
    ]


def _changed(analysis: Analysis, a: str, b: str) -> list[str]:
    """Which of CHANGEABLE the two differ in."""
    return [trait for trait in CHANGEABLE if analysis.traits[a][trait] != analysis.traits[b][trait]]
