"""The replay: the smallest rung of a submission is trained and measured again, and has to give the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pandas as pd

from bench.config.experiment import FlopRule
from bench.config.run import Run
from bench.data.open import open_data
from bench.evaluate.open import check_judge
from bench.files import write_text
from bench.plan.environment import processor_kind
from bench.progress import Display
from bench.registry import check_name
from bench.results.folder import Results
from bench.results.identity import bind_experiment
from bench.results.table import current_table
from bench.submission.checks import differences
from bench.submission.reference import Reference, outside_band
from bench.submission.rules import Rules
from bench.submission.submission import Submission
from bench.sweep.jobs import stored_jobs, training_flops
from bench.sweep.latents import fill_latents
from bench.sweep.reports import DirectReports
from bench.sweep.trunk import TrunkWorker


@dataclass(frozen=True)
class Replay:
    """What a replay found."""

    num_runs: int
    exact: bool
    """Whether the numbers had to be the same, since the kind of processor was."""
    refused: tuple[str, ...]
    """A line each; empty where the numbers hold."""


def replay(submission: Submission, folder: Path, display: Display) -> pd.DataFrame:
    """Train and measure the smallest rung again, in this process; returns its table.

    Args:
        folder: an empty one in which it trains.

    Raises:
        ValueError: when this machine lacks a plugin, data, tokenizers or judges, or has others.
    """
    results, runs = Results(folder), submission.smallest_rung
    _train(submission, runs, results, display)
    found = current_table(results)
    return found[found["run_id"].isin([run.run_id for run in runs])]


def compare(submission: Submission, replayed: pd.DataFrame, reference: Reference | None, rules: Rules) -> Replay:
    """What a replay's table says of a submission.

    On the same kind of processor, with the same torch, every number must be equal to the last digit. Elsewhere the replayed runs
    must lie in the reference's band, and those without a band cannot be confirmed.
    """
    runs = submission.smallest_rung
    handed_in = submission.rebuilt[submission.rebuilt["run_id"].isin([run.run_id for run in runs])]
    exact = all(_same_kind(submission, run) for run in runs)
    failed = replayed[replayed["status"] != "done"]
    if len(failed):
        lines = [f"run {row['run_id']} {row['status']}: {row['error']}" for row in failed.to_dict("records")]
    elif exact:
        lines = list(differences(replayed, handed_in, ("the replay", "the records"), rules.not_replayed))
    else:
        lines = _outside(submission, runs, replayed, reference, rules)
        if set(replayed["protocol"]) != set(handed_in["protocol"]):
            both = (", ".join(sorted(set(map(str, frame["protocol"])))) for frame in (replayed, handed_in))
            lines.append("the protocol is {} here and {} in the records".format(*both))
    return Replay(len(runs), exact, tuple(f"replay: {line}" for line in lines))


def _train(submission: Submission, runs: list[Run], results: Results, display: Display) -> None:
    """Train and measure runs of a submission anew."""
    dataset = open_data(submission.identity.data)
    check_judge(dataset)
    for run in runs:
        check_name(run.paradigm)
        if run.flop_rule not in get_args(FlopRule):
            raise ValueError(f"run {run.run_id} is billed by the FLOP rule {run.flop_rule}, which this version does not know")
        here = {"data": dataset.data_id, "tokenizer_hash": dataset.tokenizer_hash(run.tokenizer)}
        for name, value in here.items():
            if getattr(run, name) != value:
                raise ValueError(
                    f"run {run.run_id} has {name} {getattr(run, name)}, this machine {value}; it cannot be replayed here"
                )
    bind_experiment(results, submission.identity)
    write_text(results.plan, submission.results.plan.read_text())
    for num in sorted({run.recipe.num_training_images for run in runs}):
        dataset.check(num)
        fill_latents(sorted({run.tokenizer for run in runs}), num, results, dataset, display)
    wanted = {run.run_id for run in runs}
    jobs = [replace(job, runs=tuple(run for run in job.runs if run.run_id in wanted)) for job in stored_jobs(results)]
    jobs = [job for job in jobs if job.runs]
    worker = TrunkWorker()
    with display.training(training_flops(jobs)) as tracker:
        for job in jobs:
            threads = int(submission.records[job.runs[0].run_id].training.get("num_threads", job.machine.num_threads))
            job = replace(job, machine=replace(job.machine, num_threads=threads))
            if worker.run_job(job, DirectReports(tracker)) == "interrupted":
                raise KeyboardInterrupt


def _same_kind(submission: Submission, run: Run) -> bool:
    """Whether a run was trained on this kind of processor with this torch."""
    here, there = processor_kind(), submission.records[run.run_id].training
    return all(there.get(name) == value for name, value in here.items())


def _outside(
    submission: Submission, runs: list[Run], replayed: pd.DataFrame, reference: Reference | None, rules: Rules
) -> list[str]:
    """What speaks against runs that were replayed on another kind of processor."""
    lines, known = outside_band(submission.identity, replayed, reference, rules) if reference else ([], set[str]())
    there = submission.records[runs[0].run_id].training
    kind = f"{there.get('processor', 'an unknown processor')} with torch {there.get('torch', 'of unknown version')}"
    unknown = [run.run_id for run in runs if run.run_id not in known]
    if unknown:
        lines.append(f"{len(unknown)} runs have no reference band, such as {unknown[0]}; replay them on {kind}")
    return lines
