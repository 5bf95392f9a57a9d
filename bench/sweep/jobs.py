"""What one worker does at a time: all missing runs of one trunk; those that a plan misses, and those that a folder holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.config.data import ImageData
from bench.config.experiment import Evaluation, Method
from bench.config.run import Run
from bench.plan.machine import Machine, this_machine
from bench.plan.plan import Plan
from bench.results.folder import Results
from bench.results.identity import Identity, read_identity


@dataclass(frozen=True, kw_only=True)
class TrunkJob:
    """What one worker does: runs of one trunk, budgets ascending."""

    root: Path
    data: str | ImageData
    runs: tuple[Run, ...]
    method: Method
    evaluation: Evaluation
    machine: Machine

    @property
    def trunk_id(self) -> str:
        """Name of the trunk."""
        return self.runs[0].trunk_id

    @property
    def training_flops(self) -> float:
        """FLOPs that it will run: the trunk to its last branch point, and every cooldown."""
        return self.runs[-1].branch_flops + sum(run.cooldown_flops for run in self.runs)


def training_flops(jobs: list[TrunkJob]) -> int:
    """FLOPs that the jobs will run."""
    return round(sum(job.training_flops for job in jobs))


def missing_runs(plan: Plan, results: Results) -> set[str]:
    """run_ids of the runs that are to be trained or evaluated now."""
    return {run_id for run_id in plan.asked if results.run_folder(run_id).record.status != "done"}


def missing_jobs(plan: Plan, results: Results) -> list[TrunkJob]:
    """One job per trunk that has a run to train or evaluate now, longest first."""
    jobs, missing = [], missing_runs(plan, results)
    for job in _jobs(plan.identity, results, plan.machine):
        runs = tuple(run for run in job.runs if run.run_id in missing)
        if runs:
            jobs.append(replace(job, runs=runs))
    hours = plan.frame.groupby("trunk_id")["hours"].sum()
    return sorted(jobs, key=lambda job: -hours[job.trunk_id])


def stored_jobs(results: Results) -> list[TrunkJob]:
    """One job per trunk of the experiment that the folder belongs to, done or not.

    Raises:
        ValueError: when the folder holds no experiment, or one of another version.
    """
    return _jobs(read_identity(results), results, this_machine())


def _jobs(identity: Identity, results: Results, machine: Machine) -> list[TrunkJob]:
    return [
        TrunkJob(
            root=results.root,
            data=identity.data,
            runs=tuple(runs),
            method=identity.methods[runs[0].method],
            evaluation=identity.evaluation,
            machine=machine,
        )
        for runs in identity.trunks.values()
    ]
