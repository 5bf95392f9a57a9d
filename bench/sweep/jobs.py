"""What one worker does at a time: all missing runs of one trunk; those that a plan misses, and those that a folder holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.data import ImageData
from bench.config.experiment import Evaluation, Method
from bench.config.run import Run
from bench.files import read_json
from bench.plan.machine import Machine, this_machine
from bench.plan.plan import Plan
from bench.results.folder import Results


@dataclass(frozen=True, kw_only=True)
class TrunkJob:
    """What one worker does: all missing runs of one trunk."""

    root: Path
    data: str | ImageData
    runs: tuple[Run, ...]
    method: Method
    evaluation: Evaluation
    machine: Machine


def missing_jobs(plan: Plan, results: Results) -> list[TrunkJob]:
    """One job per trunk that has a run to train or evaluate, longest first."""
    jobs = []
    for group in plan.trunks.values():
        missing = tuple(p.run for p in group if results.record(p.run.run_id).get("status") != "done")
        if missing:
            jobs.append(
                TrunkJob(
                    root=results.root,
                    data=plan.experiment.data,
                    runs=missing,
                    method=group[0].method,
                    evaluation=plan.experiment.evaluation,
                    machine=plan.machine,
                )
            )
    hours = plan.frame.groupby("trunk_id")["hours"].sum()
    return sorted(jobs, key=lambda job: -hours[job.runs[0].trunk_id])


def training_flops(jobs: list[TrunkJob]) -> int:
    """FLOPs that the jobs will run: every trunk to its last branch point and every cooldown."""
    total = 0.0
    for job in jobs:
        cooldown = job.runs[0].recipe.cooldown
        total += (1 - cooldown) * job.runs[-1].flops_budget + sum(cooldown * run.flops_budget for run in job.runs)
    return round(total)


def stored_jobs(results: Results) -> list[TrunkJob]:
    """One job per trunk of the experiment that the folder belongs to, from its experiment.json.

    Raises:
        ValueError: when the folder holds no experiment, or one of another version.
    """
    if not results.experiment.exists():
        raise ValueError(f"{results.root} holds no experiment; make it with `paradigm-bench plan --results {results.root}`")
    stored = read_json(results.experiment)
    try:
        return _jobs(results, stored)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{results.experiment} is not of this version of paradigm-bench ({type(error).__name__}: {error})"
        raise ValueError(f"{reason}; plan the experiment in another folder") from error


def _jobs(results: Results, stored: dict[str, Any]) -> list[TrunkJob]:
    methods = {name: Method.from_dict(content) for name, content in stored["methods"].items()}
    data = stored["data"] if isinstance(stored["data"], str) else ImageData.from_dict(stored["data"])
    groups: dict[str, list[Run]] = {}
    for text in stored["runs"].values():
        run = Run.from_json(json.dumps(text))
        groups.setdefault(run.trunk_id, []).append(run)
    return [
        TrunkJob(
            root=results.root,
            data=data,
            runs=tuple(sorted(group, key=lambda r: r.flops_budget)),
            method=methods[group[0].method],
            evaluation=Evaluation(**stored["evaluation"]),
            machine=this_machine(),
        )
        for group in groups.values()
    ]
