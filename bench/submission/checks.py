"""The rules that need no training: each reads a submission and yields what it refuses, a line each. No torch.

They find what does not fit together. A number that was changed everywhere fits: only the replay finds that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pandas as pd

from bench.files import read_lines
from bench.registry import BUILT_INS
from bench.results.folder import STEP_KEYS
from bench.submission.rules import Rules
from bench.submission.submission import Submission, without_seed

Check = Callable[[Submission, Rules], Iterator[str]]


def check_names(submission: Submission, rules: Rules) -> Iterator[str]:
    """A run is what its name says, in the experiment and in its own record, and uses a method of the experiment."""
    for run_id, run in submission.runs.items():
        if run.run_id != run_id:
            yield f"run {run_id}: its configuration in experiment.json gives the name {run.run_id}; it was changed"
        stored = submission.results.run_folder(run_id).configuration
        if stored and stored != json.loads(json.dumps(run.content())):
            yield f"run {run_id}: run.json holds another configuration than experiment.json; one of them was changed"
        method = submission.identity.methods.get(run.method)
        if method is None or (method.paradigm, method.tokenizer) != (run.paradigm, run.tokenizer):
            yield f"run {run_id}: method {run.method} of the experiment is another one, or missing"


def check_runs(submission: Submission, rules: Rules) -> Iterator[str]:
    """Every run of the experiment is planned, trained and measured, once; and no other lies in the folder."""
    for run_id, times in Counter(submission.planned).items():
        if times > 1:
            yield f"run {run_id} is listed {times} times in plan.csv"
    planned, expected = set(submission.planned), set(submission.runs)
    yield from (f"run {run_id} of the experiment is missing from plan.csv" for run_id in sorted(expected - planned))
    yield from (f"run {run_id} of plan.csv is no run of the experiment" for run_id in sorted(planned - expected))
    for run_id in sorted(set(submission.results.kept_runs) - expected):
        yield f"run {run_id} lies in the folder and is no run of the experiment; was it dropped?"
    for run_id in sorted(expected):
        record = submission.records[run_id]
        if record.status != "done":
            yield f"run {run_id} is {record.status}; every run must be finished"
        else:
            yield from _check_rows(submission, run_id)


def _check_rows(submission: Submission, run_id: str) -> Iterator[str]:
    """A finished run has a row for each setting of its method, and one for each metric that settings are chosen for."""
    method, evaluation = submission.identity.methods.get(submission.runs[run_id].method), submission.identity.evaluation
    rows = read_lines(submission.results.run_folder(run_id).evals)
    if not rows:
        yield f"run {run_id} is done and has no rows in evals.jsonl"
    if evaluation.share is not None or method is None:
        return
    tried = sum(row.get("split") == "validation" for row in rows)
    if tried != len(method.settings):
        yield f"run {run_id} has {tried} of {len(method.settings)} sampler settings in evals.jsonl"
    if not evaluation.validation_only and not any(row.get("split") == "test" and row.get("ema") for row in rows):
        yield f"run {run_id} has no row on test conditions in evals.jsonl"


def check_seeds(submission: Submission, rules: Rules) -> Iterator[str]:
    """Seeds count up without a gap, all methods have the same at each budget, and no two runs have one seed's numbers."""
    at_budget: dict[int, dict[str, set[int]]] = {}
    for _, group in groupby(sorted(submission.runs.values(), key=without_seed), key=without_seed):
        runs = list(group)
        seeds = sorted(run.seed for run in runs)
        expected = list(range(rules.first_seed, rules.first_seed + len(runs)))
        first = runs[0]
        where = f"{first.method}, width {first.width}, {first.flops_budget:.3g} FLOPs"
        if seeds != expected:
            yield f"{where}: seeds {_listed(seeds)} instead of {_listed(expected)}; none may be left out or repeated"
        at_budget.setdefault(first.flops_budget, {}).setdefault(first.method, set()).update(seeds)
        known = [submission.records[run.run_id].training for run in runs if run.run_id in submission.records]
        losses = Counter(training["loss"] for training in known if isinstance(training.get("loss"), float))
        for loss, times in losses.items():
            if times > 1:
                yield f"{where}: {times} seeds have the same loss {loss}; one seed was handed in {times} times"
    for budget, seeds_of in at_budget.items():
        most = sorted(set().union(*seeds_of.values()))
        for method in submission.identity.methods:
            found = sorted(seeds_of.get(method, ()))
            if found != most:
                yield f"{method}, {budget:.3g} FLOPs: seeds {_listed(found) or 'none'}, other methods have {_listed(most)}"


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))


def check_protocol(submission: Submission, rules: Rules) -> Iterator[str]:
    """All numbers were measured in one way."""
    found = submission.rebuilt.dropna(subset=["protocol"]).groupby("protocol")["run_id"].first()
    if len(found) > 1:
        listed = ", ".join(f"{protocol} ({run_id})" for protocol, run_id in found.items())
        yield f"rows of {len(found)} protocols: {listed}; their numbers do not compare"


def check_budgets(submission: Submission, rules: Rules) -> Iterator[str]:
    """Every run spent its budget, and its last logged step says the same."""
    for run_id, run in submission.runs.items():
        training = submission.records[run_id].training
        spent = training.get("flops_spent")
        if not isinstance(spent, int | float) or isinstance(spent, bool):
            continue  # not trained, which another rule says
        if not abs(spent / run.flops_budget - 1) <= rules.budget_tolerance:
            yield (
                f"run {run_id} spent {spent:.4g} of {run.flops_budget:.4g} training FLOPs, {spent / run.flops_budget - 1:+.1%}; "
                f"allowed are {rules.budget_tolerance:.0%}"
            )
        lines = read_lines(submission.results.run_folder(run_id).metrics, STEP_KEYS)
        logged = {name: lines[-1].get(name) for name in ("flops_spent", "loss")} if lines else {}
        kept = {name: training.get(name) for name in ("flops_spent", "loss")}
        if logged != kept:
            yield f"run {run_id}: run.json says {kept}, the last line of metrics.jsonl {logged or 'is missing'}"


def check_table(submission: Submission, rules: Rules) -> Iterator[str]:
    """The table that was handed in is the one that the records give."""
    yield from differences(submission.rebuilt, submission.table, ("the records", submission.results.table.name))


def check_environment(submission: Submission, rules: Rules) -> Iterator[str]:
    """Hardware and packages are known, and every plugin by package and commit."""
    if not submission.environment:
        yield "environment.json is missing; the sweep writes it when it trains"
        return
    plugins = submission.about("plugins")
    for name in sorted({run.paradigm for run in submission.runs.values()} - BUILT_INS.keys()):
        known = plugins.get(name)
        if not isinstance(known, dict) or not known.get("commit"):
            yield f"plugin {name} has no commit in environment.json; install it from a git checkout and train again"
        elif str(known["commit"]).endswith("+"):
            yield f"plugin {name} was changed after its commit {known['commit']}; commit it and train again"


CHECKS: tuple[Check, ...] = (
    check_names,
    check_runs,
    check_seeds,
    check_protocol,
    check_budgets,
    check_table,
    check_environment,
)
"""In the order in which their reasons are given."""


def differences(
    expected: pd.DataFrame, found: pd.DataFrame, names: tuple[str, str], leave_out: tuple[str, ...] = ()
) -> Iterator[str]:
    """The first cell of every run in which two tables differ, a line each.

    Args:
        expected, found: tables with the columns of COLUMNS; rows of a run in the order in which it was measured.
        names: how the two are called.
        leave_out: columns that may differ.
    """
    columns = [name for name in expected.columns if name not in leave_out]
    groups = [dict(list(frame.groupby("run_id", sort=False))) for frame in (expected, found)]
    for run_id in dict.fromkeys([*groups[0], *groups[1]]):
        a, b = (group.get(run_id, expected.iloc[:0]) for group in groups)
        if len(a) != len(b):
            yield f"run {run_id} has {len(a)} rows in {names[0]} and {len(b)} in {names[1]}"
            continue
        for number, (left, right) in enumerate(zip(a.to_dict("records"), b.to_dict("records"), strict=True), start=1):
            wrong = next((name for name in columns if not _same(left[name], right[name])), None)
            if wrong is not None:
                row = f"row {number} of {len(a)}, {wrong}"
                yield f"run {run_id}, {row}: {left[wrong]} in {names[0]}, {right[wrong]} in {names[1]}"
                break


def _same(a: Any, b: Any) -> bool:
    """Equal to the last digit, or both empty."""
    return bool(pd.isna(a) and pd.isna(b)) or bool(a == b)
