"""The papers' claims, and what a sweep says of each. Computed, never written; and before a sweep, what it could not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bench.analysis.comparison import Analysis, leader
from bench.analysis.effects import Effect
from bench.analysis.metrics import SIZE
from bench.analysis.scaling import MIN_SEEDS
from bench.analysis.statements import STATEMENTS, Statement
from bench.analysis.traits import Traits
from bench.analysis.verdicts import Verdict, verdict
from bench.progress import format_number


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its verdict."""

    text: str
    source: str
    verdict: Verdict
    evidence: str
    """Numbers and intervals, or what is missing."""
    effects: tuple[Effect, ...] = ()
    """What each pair of methods says."""


def judge(analysis: Analysis) -> list[Claim]:
    """Every claim with its verdict for this table."""
    return [_judge(statement, analysis) for statement in STATEMENTS]


def _judge(statement: Statement, analysis: Analysis) -> Claim:
    finished = {method: analysis.traits.get(method, {}) for method in analysis.methods}
    pairs = statement.pairs(finished)
    if not pairs:
        return Claim(statement.text, statement.source, "not tested", f"needs {statement.needed} in one sweep")
    if statement.estimate is None:
        return Claim(statement.text, statement.source, "not tested", statement.untested)
    effects = tuple(statement.estimate(analysis, a, b) for a, b in pairs)
    said = verdict(effects, superlative=statement.superlative)
    evidence = "; ".join(effect.text for effect in effects)
    return Claim(statement.text, statement.source, said, evidence, effects)


def undecidable(methods: Mapping[str, Traits], plan: pd.DataFrame) -> list[str]:
    """Claims about the methods of a plan that its seeds cannot decide: MIN_SEEDS are needed at every rung that a claim reads, at
    every size, since any of them may turn out best.

    Args:
        plan: planned runs: columns method, flops_budget, width, depth, seed.
    """
    seeds = plan.groupby(["method", "flops_budget", *SIZE])["seed"].nunique().groupby(["method", "flops_budget"]).min()
    budgets = sorted(plan["flops_budget"].unique())
    read = {"top": budgets[-1:], "lowest": budgets[:1], "all": budgets}
    found = []
    for statement in STATEMENTS:
        held = {name for pair in statement.pairs(methods) for name in pair} if statement.estimate is not None else set()
        counts = [int(seeds.get((name, budget), 0)) for name in held for budget in read[statement.budgets]]
        if counts and min(counts) < MIN_SEEDS:
            found.append(statement.text)
    return found


def summary(analysis: Analysis) -> str:
    """The verdict in a paragraph: who leads on quality and cost at the top budget, and what can be said of scaling."""
    if not analysis.methods:
        return "Nothing has finished yet."
    top, sentences = analysis.budgets[-1], []
    for name, words in (("prompt_accuracy", "prompt following"), ("fid", "FID")):
        samples = analysis.samples(name, top)
        if not samples:
            continue
        metric = analysis.metric(name)
        first, second, lead = leader(samples, metric)
        means = {method: format_number(metric.unscaled(samples[method].mean)) for method in (first, second) if method}
        text = f"At {format_number(top)} training FLOPs per run {first} leads on {words} ({means[first]}"
        if second is None:
            sentences.append(text + ", no other method)")
            continue
        text += f", then {second} {means[second]})"
        if lead is None:
            text += "; with one seed each this lead has no interval"
        else:
            clear = "outside" if lead.sign == 1 else "within"
            text += f"; the lead is {clear} the seeds' 95 % interval"
        sentences.append(text)
    sentences += [_cheapest(analysis.best_runs("prompt_accuracy"), top)]
    law = _law_of_loss(analysis)
    sentences.append(law)
    missing = analysis.missing()
    if missing:
        sentences.append(f"FID has {missing}" if law else f"This sweep gives {missing}")
    else:
        sentences += [str(found) for name in ("fid", "prompt_accuracy") for found in analysis.crossings(name)]
    said = [sentence[0].upper() + sentence[1:] for sentence in sentences if sentence]
    return ". ".join(said or ["The runs were measured by their validation loss alone; nothing was sampled"]) + "."


def _law_of_loss(analysis: Analysis) -> str:
    """How fast each method's validation loss falls, where there is a fit."""
    if not len(analysis.rows("validation_loss")):
        return ""
    fits = [fit for fit in analysis.fits("validation_loss").values() if fit.law is not None]
    found = [
        f"C^-{format_number(fit.exponent.value)} ({fit.method}, 95 % {format_number(fit.exponent.low)} to "
        f"{format_number(fit.exponent.high)})"
        for fit in fits
    ]
    return f"Above its offset the validation loss falls as {', '.join(found)}" if found else ""


def _cheapest(runs: pd.DataFrame, top: float) -> str:
    means = runs[runs["flops_budget"] == top].groupby("method")[["flops_per_sample", "latency_ms_b1_p50", "images_per_s"]].mean()
    parts = []
    if means["flops_per_sample"].notna().any():
        parts.append(f"{means['flops_per_sample'].idxmin()} needs the fewest FLOPs per sample")
    if means["latency_ms_b1_p50"].notna().any():
        parts.append(f"{means['latency_ms_b1_p50'].idxmin()} has the lowest latency at batch 1")
    if means["images_per_s"].notna().any():
        parts.append(f"{means['images_per_s'].idxmax()} the highest throughput")
    found = ", ".join(parts)
    return f"At the settings chosen for accuracy {found}" if found else ""
