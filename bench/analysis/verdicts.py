"""From effects to a verdict: what may be said of a claim when its pairs agree, disagree, or say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bench.analysis.effects import Effect
from bench.analysis.welch import ERROR_RATE, holm

Verdict = Literal["supported", "contradicted", "mixed", "undecided", "not tested"]


def signs(effects: Sequence[Effect]) -> list[int]:
    """Per effect 1 or -1 where it is significant among all of the claim (Holm at 5 %), else 0."""
    known = [e.found for e in effects if e.found is not None]
    adjusted = iter(holm([found.p_value for found in known]))
    return [0 if e.found is None or next(adjusted) > ERROR_RATE else 1 if e.found.interval.value > 0 else -1 for e in effects]


def verdict(effects: Sequence[Effect], *, superlative: bool) -> Verdict:
    """Of a claim that says the same of each of its pairs.

    Supported when every pair is significantly as claimed; contradicted when one is significantly the opposite and none as
    claimed; mixed when there are both. One loss contradicts a superlative whatever the other pairs say: the best of three is not
    best when it is beaten by one. Otherwise undecided.
    """
    if not effects:
        return "not tested"
    found = signs(effects)
    if -1 in found:
        return "mixed" if 1 in found and not superlative else "contradicted"
    return "supported" if set(found) == {1} else "undecided"
