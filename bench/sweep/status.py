"""How far a sweep is, from its files and, where it was submitted, from SLURM's queue. No torch."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench.config.run import Run
from bench.files import read_json, read_lines
from bench.progress import duration
from bench.results.folder import STEP_KEYS, Results
from bench.results.identity import read_identity

FRESH_SECONDS = 600.0
"""A training that has written nothing for so long adds nothing to the rate."""


def submitted(results: Results) -> dict[str, str]:
    """SLURM's number of each trunk's last job, of the last encoding and of the last report."""
    return read_json(results.slurm_jobs) if results.slurm_jobs.exists() else {}


def queue(numbers: Iterable[str]) -> dict[str, str]:
    """SLURM's states (PENDING, RUNNING, ...) of the jobs that it still knows as unfinished."""
    numbers = set(numbers)
    if not numbers or shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    states = dict(line.split(maxsplit=1) for line in listed.splitlines())
    return {number: state for number, state in states.items() if number in numbers}


def run_states(results: Results) -> list[dict[str, Any]]:
    """One record per run of the folder's experiment: run_id, status, error, share of its FLOPs done, FLOPs left and in
    all (the trunk's since the rung before and its own cooldown), and FLOP/s where it trains.

    The status is that of the run's record; "queued" where SLURM holds the run's trunk and nobody works on the run.

    Raises:
        ValueError: when the folder holds no experiment, or one of its files is damaged.
    """
    identity, jobs = read_identity(results), submitted(results)
    held = queue(jobs.values())
    states = []
    for trunk_id, runs in identity.trunks.items():
        before, slurm = 0.0, held.get(jobs.get(trunk_id, ""))
        for run in runs:
            record = results.run_folder(run.run_id).record
            status: str = record.status
            if slurm and (status in ("missing", "interrupted", "failed") or (status == "training" and slurm == "PENDING")):
                status = "queued"
            spent, rate = (run.flops_budget, None) if record.is_trained else progress(results, run)
            states.append(
                {
                    "run_id": run.run_id,
                    "status": status,
                    "error": record.error,
                    "share": round(min(1.0, spent / run.flops_budget), 4),
                    "flops_left": round(flops_left(run, spent, before)),
                    "flops_total": round(flops_left(run, 0.0, before)),
                    "flops_per_s": rate if status == "training" else None,
                }
            )
            before = run.branch_flops
    return states


def flops_left(run: Run, spent: float, before: float) -> float:
    """Training FLOPs that a run lacks after `spent`: its trunk's beyond `before`, where the rung before branches, and its own."""
    trunk = max(0.0, run.branch_flops - max(spent, before))
    return trunk + max(0.0, run.flops_budget - max(spent, run.branch_flops))


def progress(results: Results, run: Run) -> tuple[float, float | None]:
    """FLOPs that a run has behind it, those of its trunk included, and the FLOP/s of its last lines when they are fresh."""
    own, trunk = results.run_folder(run.run_id).metrics, results.trunk_folder(run.trunk_id).metrics
    lines = read_lines(own, STEP_KEYS)
    path = own if lines and lines[-1]["flops_spent"] > run.branch_flops else trunk
    lines = [line for line in read_lines(path, STEP_KEYS) if path == own or line["flops_spent"] <= run.branch_flops]
    if not lines:
        return 0.0, None
    last = [line for line in lines[-2:] if time.time() - path.stat().st_mtime < FRESH_SECONDS]
    seconds = last[1]["segment_seconds"] - last[0]["segment_seconds"] if len(last) == 2 else 0.0
    rate = (last[1]["flops_spent"] - last[0]["flops_spent"]) / seconds if seconds > 0 else None
    return lines[-1]["flops_spent"], rate


def loss_curve(results: Results, run: Run, most: int = 200) -> list[tuple[float, float]]:
    """FLOPs and training loss of a run from its trunk's first step on, at most so many points, evenly."""
    own = [
        line for line in read_lines(results.run_folder(run.run_id).metrics, STEP_KEYS) if line["flops_spent"] > run.branch_flops
    ]
    trunk = read_lines(results.trunk_folder(run.trunk_id).metrics, STEP_KEYS)
    lines = [line for line in trunk if line["flops_spent"] <= run.branch_flops] + own
    points = [(line["flops_spent"], line["loss"]) for line in lines if math.isfinite(line["loss"])]
    return points[:: max(1, -(-len(points) // most))]


def summary(states: list[dict[str, Any]]) -> str:
    """Counts by status, and when training will be done at the rate of the runs that train now."""
    counts = ", ".join(f"{number} {status}" for status, number in Counter(state["status"] for state in states).items())
    left = sum(state["flops_left"] for state in states)
    rate = sum(state["flops_per_s"] or 0.0 for state in states)
    eta = f"; {left:.2g} FLOPs left at {rate:.2g} FLOP/s, ETA {duration(left / rate)}" if rate else ""
    return f"{len(states)} runs: {counts}{eta}"
