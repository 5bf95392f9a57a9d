"""The papers' claims, and what a sweep says of each: supported, contradicted, undecided or not tested. Computed, never written.

A claim names pairs of methods, the better one first. It is supported when every pair that the table holds shows it with a 95 %
interval on one side of zero, contradicted when every pair shows the opposite so, and undecided otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bench.analysis.comparison import Analysis, difference, leader
from bench.analysis.laws import Array
from bench.analysis.scaling import Interval
from bench.results.table import finished_rows

KILIAN, LI = "Kilian et al. 2024", "Li et al. 2024"
Verdict = Literal["supported", "contradicted", "undecided", "not tested"]
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its verdict."""

    text: str
    source: str
    verdict: Verdict
    evidence: str
    """Numbers and intervals, or what is missing."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A claim as it is computed: for each pair an estimate that is positive when the first method is better."""

    text: str
    source: str
    pairs: tuple[Pair, ...]
    estimate: Callable[[Analysis, str, str], tuple[Interval | None, str]]


def _number(value: float) -> str:
    return f"{value:.3g}"


def _advantage(name: str, which: int) -> Callable[[Analysis, str, str], tuple[Interval | None, str]]:
    """How much better a is than b at the top (-1) or the lowest (0) budget, and the numbers."""

    def estimate(analysis: Analysis, a: str, b: str) -> tuple[Interval | None, str]:
        metric, budget = analysis.metric(name), analysis.budgets[which]
        cells = analysis.values(name, budget)
        if a not in cells or b not in cells:
            return None, f"{a} or {b} has no finished run at {budget:.1e} FLOPs"
        found = difference(cells, a, b, ratio=not metric.share)
        means = f"{name} {_number(cells[a].mean())} ({a}) and {_number(cells[b].mean())} ({b}) at {budget:.1e} FLOPs"
        return _oriented(found, metric.higher_is_better), means + _said(found, ratio=not metric.share)

    return estimate


def _oriented(found: Interval | None, higher_is_better: bool) -> Interval | None:
    if found is None or higher_is_better:
        return found
    return -found


def _said(found: Interval | None, *, ratio: bool) -> str:
    if found is None:
        return ", no interval: no method has two seeds there"
    shown = found.map(math.exp) if ratio else found
    kind = "ratio" if ratio else "difference"
    return f", {kind} {_number(shown.value)} [{_number(shown.low)}, {_number(shown.high)}]"


def _catches_up(analysis: Analysis, a: str, b: str) -> tuple[Interval | None, str]:
    """Whether a's FID over b's falls from the lowest to the top budget; the two budgets' errors are independent."""
    low, top = analysis.budgets[0], analysis.budgets[-1]
    if low == top:
        return None, "there is one budget only"
    first, last = analysis.values("fid", low), analysis.values("fid", top)
    if not {a, b} <= set(first) or not {a, b} <= set(last):
        return None, f"{a} or {b} has no finished run at one of the two budgets"
    ratios = [float(np.log(v[a]).mean() - np.log(v[b]).mean()) for v in (first, last)]
    text = f"FID of {a} over {b}: {_number(math.exp(ratios[0]))} at {low:.1e}, {_number(math.exp(ratios[1]))} at {top:.1e} FLOPs"
    spread = difference(last, a, b, ratio=True)
    if spread is None:
        return None, text + _said(None, ratio=True)
    seeds = math.sqrt(1 / len(last[a]) + 1 / len(last[b]))
    reach = (spread.high - spread.value) * math.sqrt(1 + (1 / len(first[a]) + 1 / len(first[b])) / seeds**2)
    fall = ratios[0] - ratios[1]
    found = Interval(fall - reach, fall, fall + reach)
    shown = found.map(math.exp)
    text += f", fall by a factor {_number(shown.value)} [{_number(shown.low)}, {_number(shown.high)}]"
    return found, text + " with the seed noise of the top budget at both"


def _cheaper(column: str, *, exact: bool, more: bool = False) -> Callable[[Analysis, str, str], tuple[Interval | None, str]]:
    """Whether a needs less of a cost than b (or, with `more`, gives more) at the top budget, at the settings chosen."""

    def estimate(analysis: Analysis, a: str, b: str) -> tuple[Interval | None, str]:
        runs = analysis.best_runs("prompt_accuracy")
        top = runs[runs["flops_budget"] == analysis.budgets[-1]].dropna(subset=[column])
        cells = {m: g[column].to_numpy(float) for m, g in top.groupby("method")}
        if a not in cells or b not in cells:
            return None, f"{a} or {b} has no {column}"
        text = f"{column} {_number(cells[a].mean())} ({a}) and {_number(cells[b].mean())} ({b})"
        if exact:
            gap = float(np.log(cells[a]).mean() - np.log(cells[b]).mean())
            return _oriented(Interval(gap, gap, gap), more), text + f", ratio {_number(math.exp(gap))}, counted"
        found = difference(cells, a, b, ratio=True)
        return _oriented(found, more), text + _said(found, ratio=True)

    return estimate


def _gains_from_averaging(analysis: Analysis, a: str, b: str) -> tuple[Interval | None, str]:
    """Whether averaging the weights lowers a's FID by more than b's, over all runs, at the setting chosen for accuracy."""
    gains: dict[str, Array] = {}
    averaged, raw = (finished_rows(analysis.frame, ema=ema)[["method", "run_id", "fid"]] for ema in (True, False))
    both = averaged.merge(raw, on=["method", "run_id"], suffixes=("", "_raw")).dropna()
    for method, group in both.groupby("method"):
        gains[str(method)] = np.log(group["fid_raw"].to_numpy(float) / group["fid"].to_numpy(float))
    if a not in gains or b not in gains:
        return None, f"{a} or {b} was not sampled with raw weights"
    found = difference(gains, a, b, ratio=False)
    shown = [math.exp(gains[m].mean()) for m in (a, b)]
    text = f"FID of raw over averaged weights: {_number(shown[0])} ({a}, {len(gains[a])} runs), {_number(shown[1])} ({b})"
    return found, text + _said(found, ratio=True)


CELLS = tuple(
    f"{order}-{attention}-{number}"
    for order, attention, number in (
        ("raster", "causal", "one"),
        ("random", "causal", "one"),
        ("random", "bidirectional", "one"),
        ("random", "bidirectional", "several"),
    )
)
RASTER, RANDOM, ONE, SEVERAL = CELLS
LOSSES = ("cross-entropy", "diffusion")
FID_AT_TOP, ACCURACY_AT_TOP = _advantage("fid", -1), _advantage("prompt_accuracy", -1)


def _over_losses(better: str, worse: str) -> tuple[Pair, ...]:
    return tuple((f"{better}-{loss}", f"{worse}-{loss}") for loss in LOSSES)


STATEMENTS = (
    Statement(
        "Token prediction follows prompts better than diffusion",
        KILIAN,
        (("next-token", "diffusion"), ("masked-token", "diffusion")),
        ACCURACY_AT_TOP,
    ),
    Statement(
        "Next-token prediction leads the token methods on prompt following",
        KILIAN,
        (("next-token", "masked-token"),),
        ACCURACY_AT_TOP,
    ),
    Statement(
        "At low compute next-token prediction has the best image quality",
        KILIAN,
        (("next-token", "diffusion"), ("next-token", "masked-token")),
        _advantage("fid", 0),
    ),
    Statement(
        "Diffusion catches up with next-token prediction on FID as compute grows",
        KILIAN,
        (("diffusion", "next-token"),),
        _catches_up,
    ),
    Statement(
        "Next-token prediction needs the least compute per sample",
        KILIAN,
        (("next-token", "diffusion"), ("next-token", "masked-token"), ("next-token", "mar")),
        _cheaper("flops_per_sample", exact=True),
    ),
    Statement(
        "Diffusion has the lowest latency",
        KILIAN,
        (("diffusion", "next-token"), ("diffusion", "masked-token")),
        _cheaper("latency_ms_b1_p50", exact=False),
    ),
    Statement(
        "Next-token prediction has the highest throughput",
        KILIAN,
        (("next-token", "diffusion"), ("next-token", "masked-token")),
        _cheaper("images_per_s", exact=False, more=True),
    ),
    Statement(
        "Averaging the weights helps diffusion most",
        KILIAN,
        (("diffusion", "next-token"), ("diffusion", "masked-token")),
        _gains_from_averaging,
    ),
    Statement(
        "Continuous tokens with Diffusion Loss beat cross-entropy on codes",
        LI,
        (("mar", "masked-token"), *((f"{cell}-diffusion", f"{cell}-cross-entropy") for cell in CELLS)),
        FID_AT_TOP,
    ),
    Statement("Random order beats raster order under causal attention", LI, _over_losses(RANDOM, RASTER), FID_AT_TOP),
    Statement("Bidirectional attention beats causal attention in random order", LI, _over_losses(ONE, RANDOM), FID_AT_TOP),
    Statement("Random order with bidirectional attention beats raster causal", LI, _over_losses(SEVERAL, RASTER), FID_AT_TOP),
    Statement("One token per step is better than several", LI, _over_losses(ONE, SEVERAL), FID_AT_TOP),
    Statement(
        "The squared error in place of Diffusion Loss fails",
        LI,
        ((f"{SEVERAL}-diffusion", f"{SEVERAL}-squared-error"),),
        FID_AT_TOP,
    ),
)


def judge(analysis: Analysis) -> list[Claim]:
    """Every claim with its verdict for this table."""
    return [_judge(statement, analysis) for statement in STATEMENTS]


def _judge(statement: Statement, analysis: Analysis) -> Claim:
    held = [pair for pair in statement.pairs if set(pair) <= set(analysis.methods)]
    if not held:
        needed = " or ".join(f"{a} and {b}" for a, b in statement.pairs[:2])
        return Claim(statement.text, statement.source, "not tested", f"needs {needed} in one sweep")
    found = [statement.estimate(analysis, a, b) for a, b in held]
    signs = {0 if interval is None else interval.sign for interval, _ in found}
    verdict: Verdict = "supported" if signs == {1} else "contradicted" if signs == {-1} else "undecided"
    return Claim(statement.text, statement.source, verdict, "; ".join(text for _, text in found))


def summary(analysis: Analysis) -> str:
    """The verdict in a paragraph: who leads on quality and cost at the top budget, and what can be said of scaling."""
    if not analysis.methods:
        return "Nothing has finished yet."
    top, sentences = analysis.budgets[-1], []
    for name, words in (("prompt_accuracy", "prompt following"), ("fid", "FID")):
        cells = analysis.values(name, top)
        if not cells:
            continue
        metric = analysis.metric(name)
        first, second, lead = leader(cells, metric)
        text = f"At {top:.1e} training FLOPs per run {first} leads on {words} ({_number(cells[first].mean())}"
        if second is None:
            sentences.append(text + ", no other method)")
            continue
        text += f", then {second} {_number(cells[second].mean())})"
        if lead is None:
            text += "; with one seed each this lead has no interval"
        else:
            clear = "outside" if lead.sign == 1 else "within"
            text += f"; the lead is {clear} the seeds' 95 % interval"
        sentences.append(text)
    sentences += [_cheapest(analysis.best_runs("prompt_accuracy"), top)]
    missing = analysis.missing()
    if missing:
        sentences.append(f"This sweep gives {missing}")
    else:
        sentences += [str(found) for name in ("fid", "prompt_accuracy") for found in analysis.crossings(name)]
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences if sentence) + "."


def _cheapest(runs: pd.DataFrame, top: float) -> str:
    means = runs[runs["flops_budget"] == top].groupby("method")[["flops_per_sample", "latency_ms_b1_p50", "images_per_s"]].mean()
    parts = []
    if means["flops_per_sample"].notna().any():
        parts.append(f"{means['flops_per_sample'].idxmin()} needs the fewest FLOPs per sample")
    if means["latency_ms_b1_p50"].notna().any():
        parts.append(f"{means['latency_ms_b1_p50'].idxmin()} has the lowest latency at batch 1")
    if means["images_per_s"].notna().any():
        parts.append(f"{means['images_per_s'].idxmax()} the highest throughput")
    return ", ".join(parts)
