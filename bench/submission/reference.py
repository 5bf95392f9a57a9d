"""The reference: runs of the built-ins at many seeds. How far an honest run may lie from them, and what the closed division
shares with them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t as student

from bench.analysis.metrics import METRICS, Metric
from bench.config.run import Run
from bench.results.folder import Results
from bench.results.identity import Identity, read_identity
from bench.results.table import finished_rows, load_table, loss_rows
from bench.submission.rules import Rules
from bench.submission.submission import Submission, without_seed


@dataclass(frozen=True)
class Reference:
    """A results folder of the baselines; its table is enough."""

    name: str
    identity: Identity
    table: pd.DataFrame


def read_reference(root: Path) -> Reference:
    """A folder with experiment.json and table.csv.

    Raises:
        ValueError: when one of them is missing or damaged.
    """
    return Reference(str(root), read_identity(Results(root)), load_table(root))


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a further seed's value lies."""

    low: float
    high: float
    num_seeds: int


def outside_band(identity: Identity, frame: pd.DataFrame, reference: Reference, rules: Rules) -> tuple[list[str], set[str]]:
    """The runs of a table that lie too far from the reference runs of their configuration, a line each; and the run ids that have
    a band at all.

    A further normal value lies within mean +- t * sd * sqrt(1 + 1/n) of n others, on the scale on which the metric compares. The
    error rate of the rules is shared by all values that are looked at.
    """
    found = list(_values(identity, frame, reference, rules))
    lines = []
    for run, metric, value, others in found:
        interval = _band(metric, others, rules.band.error_rate / len(found))
        if not interval.low <= value <= interval.high:
            ends = f"{metric.unscaled(interval.low):.4g} to {metric.unscaled(interval.high):.4g}"
            lines.append(
                f"run {run.run_id}: {metric.column} {metric.unscaled(value):.4g} lies outside {ends}, where a further seed "
                f"beside the reference's {len(others)} lies"
            )
    return lines, {run.run_id for run, *_ in found}


def _values(
    identity: Identity, frame: pd.DataFrame, reference: Reference, rules: Rules
) -> Iterator[tuple[Run, Metric, float, pd.DataFrame]]:
    """Each run's value of each metric on its scale, with the reference rows of its configuration."""
    alike: dict[str, list[str]] = {}
    for run_id, run in reference.identity.runs.items():
        alike.setdefault(without_seed(run), []).append(run_id)
    for name in rules.band.metrics:
        metric = METRICS[name]
        ours, theirs = (_rows(table, metric) for table in (frame, reference.table))
        for row, value in zip(ours.to_dict("records"), metric.scaled(ours), strict=True):
            mine = identity.runs.get(row["run_id"])
            if mine is None:
                continue
            others = theirs[theirs["run_id"].isin(alike.get(without_seed(mine), ()))]
            if others["seed"].nunique() < rules.band.min_seeds:
                continue
            if metric.of_images and not _sampled_alike(identity, row, reference, mine, others):
                continue
            yield mine, metric, float(value), others


def _rows(table: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """One finished row per run that has the metric."""
    rows = finished_rows(table, metric.tuned_for) if metric.of_images else loss_rows(table)
    return rows[rows[metric.column].notna()]


def _sampled_alike(identity: Identity, row: dict[str, Any], reference: Reference, run: Run, others: pd.DataFrame) -> bool:
    """Whether images were drawn and judged in the same way."""
    known = reference.identity.methods.get(run.method)
    same = known is not None and known.settings == identity.methods[run.method].settings
    return same and set(others["protocol"]) == {row["protocol"]}


def _band(metric: Metric, rows: pd.DataFrame, error_rate: float) -> Interval:
    """Where a further seed's value lies on the metric's scale; no narrower than the error of one value at one seed."""
    sample, num = metric.sample(rows), len(rows)
    half = float(student.ppf(1 - error_rate / 2, num - 1)) * (sample.variance * num * (1 + 1 / num)) ** 0.5
    return Interval(sample.mean - half, sample.mean + half, num)


def open_because(submission: Submission, reference: Reference, rules: Rules) -> list[str]:
    """Why a submission is in the open division, a line each; empty for the closed one."""
    return [reason for name in rules.closed for reason in CLOSED[name](submission, reference, rules)]


Reasons = Callable[[Submission, Reference, Rules], Iterator[str]]


def _data(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    ours, theirs = ({run.data for run in each.identity.runs.values()} for each in (submission, reference))
    if ours != theirs:
        yield f"data {_listed(ours)} instead of {_listed(theirs)}"


def _evaluation(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    ours, theirs = (asdict(each.identity.evaluation) for each in (submission, reference))
    for name in ours:
        if name not in rules.ignored_by_evaluation and ours[name] != theirs[name]:
            yield f"evaluation {name} {ours[name]} instead of {theirs[name]}"


def _recipe(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    theirs = asdict(next(iter(reference.identity.runs.values())).recipe)
    ours = [asdict(run.recipe) for run in submission.runs.values()]
    for name, value in theirs.items():
        others = {str(recipe[name]) for recipe in ours} - {str(value)}
        if others:
            yield f"recipe {name} {_listed(others)} instead of {value}"


def _flop_rule(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    ours, theirs = ({str(run.flop_rule) for run in each.identity.runs.values()} for each in (submission, reference))
    if ours != theirs:
        yield f"FLOP rule {_listed(ours)} instead of {_listed(theirs)}"


def _tokenizers(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    ours, theirs = (
        {f"{run.tokenizer}@{run.tokenizer_hash}" for run in each.identity.runs.values()} for each in (submission, reference)
    )
    if ours - theirs:
        yield f"tokenizer {_listed(ours - theirs)}, the reference has {_listed(theirs)}"


def _settings(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    most = max(len(method.settings) for method in reference.identity.methods.values())
    for name, method in submission.identity.methods.items():
        if len(method.settings) > most:
            yield f"{name} tries {len(method.settings)} sampler settings, the reference {most}"


def _learning_rates(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    rates: dict[tuple[str, str], set[float]] = {}
    for run in submission.runs.values():
        rates.setdefault((run.method, run.size.name), set()).add(run.learning_rate)
    for (method, size), found in rates.items():
        if len(found) > 1:
            yield f"{method} trains {size} with {len(found)} learning rates"


def _commit(submission: Submission, reference: Reference, rules: Rules) -> Iterator[str]:
    changed = {sha for record in submission.records.values() if (sha := str(record.training.get("git_sha", ""))).endswith("+")}
    if changed:
        yield f"the suite was changed after its commit {_listed(changed)}"


CLOSED: dict[str, Reasons] = {
    "data": _data,
    "evaluation": _evaluation,
    "recipe": _recipe,
    "flop_rule": _flop_rule,
    "tokenizers": _tokenizers,
    "settings": _settings,
    "learning_rates": _learning_rates,
    "commit": _commit,
}
"""What the closed division shares with the reference; which of them count is a line of rules.json."""


def _listed(found: set[str]) -> str:
    return ", ".join(sorted(found))
