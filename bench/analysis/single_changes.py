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

CHANGEABLE = {
    "order": "order",
    "attention": "attention",
    "tokens_per_step": "tokens per step",
    "loss": "loss",
    "autoencoder": "autoencoder",
}
"""Traits (bench/analysis/traits.py) that two methods may differ in, with their words."""
METRIC = "fid"


@dataclass(frozen=True, slots=True)
class Change:
    """Two methods that differ in one thing, and what this does to FID at a budget."""

    budget: float
    first: str
    second: str
    what: str
    """The trait and its two values, in words."""
    ratio: Interval
    """FID of the second method over that of the first, with its 95 % interval over seeds."""
    p_value: float
    """After Holm's correction over all changes of the table."""

    @property
    def is_established(self) -> bool:
        """Whether chance is ruled out."""
        return self.p_value < ERROR_RATE


def single_changes(analysis: Analysis) -> list[Change]:
    """Every such pair at every budget, by trait; those without an interval (one seed) are left out."""
    names = [name for name in in_order(analysis.methods) if set(CHANGEABLE) <= set(analysis.traits.get(name, {}))]
    pairs = {(a, b): _changed(analysis, a, b) for a, b in itertools.combinations(names, 2)}
    alike = sorted((pair for pair, changed in pairs.items() if len(changed) == 1), key=lambda pair: pairs[pair])
    found = [
        (budget, a, b, seen)
        for budget in analysis.budgets
        for samples in [analysis.samples(METRIC, budget)]
        for a, b in alike
        if a in samples and b in samples and (seen := difference(samples[b], samples[a])) is not None
    ]
    adjusted = holm([seen.p_value for *_, seen in found])
    return [
        Change(budget, a, b, _words(analysis, a, b, *pairs[a, b]), seen.interval.map(math.exp), p_value)
        for (budget, a, b, seen), p_value in zip(found, adjusted, strict=True)
    ]


def _changed(analysis: Analysis, a: str, b: str) -> list[int]:
    """Which of CHANGEABLE the two differ in, by place."""
    first, second = analysis.traits[a], analysis.traits[b]
    return [place for place, trait in enumerate(CHANGEABLE) if first[trait] != second[trait]]


def _words(analysis: Analysis, a: str, b: str, place: int) -> str:
    trait, word = list(CHANGEABLE.items())[place]
    return f"{word}: {analysis.traits[a][trait]} → {analysis.traits[b][trait]}"
