"""How far a sweep is, from its files and, where it was submitted, from SLURM's queue. No torch."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench.files import read_json, read_lines
from bench.progress import duration
from bench.results.folder import STEP_KEYS, Results

FRESH_SECONDS = 600.0
"""A training that has written nothing for so long adds nothing to the rate."""
ENDED = ("trained", "evaluating", "done")


def submitted(results: Results) -> dict[str, str]:
    """SLURM's number of each trunk's last job, of the last encoding and of the last report."""
    path = results.root / "slurm" / "jobs.json"
    return read_json(path) if path.exists() else {}


def queue(numbers: Iterable[str]) -> dict[str, str]:
    """SLURM's states (PENDING, RUNNING, ...) of the jobs that it still knows as unfinished."""
    numbers = set(numbers)
    if not numbers or shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    states = dict(line.split(maxsplit=1) for line in listed.splitlines())
    return {number: state for number, state in states.items() if number in numbers}


def run_states(results: Results, planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per planned run: run_id, status, error, share of its FLOPs done, FLOPs left (the trunk's since the rung before
    and its own cooldown), and FLOP/s where it trains.

    The status is that of the run's record; "queued" where SLURM holds the run's trunk and nobody works on the run.
    """
    jobs = submitted(results)
    held = queue(jobs.values())
    runs = read_json(results.experiment).get("runs", {}) if results.experiment.exists() else {}
    states, branches = [], dict[str, float]()
    for row in planned:  # budgets of a trunk ascend
        record = results.record(row["run_id"])
        status = record.get("status", "missing")
        slurm = held.get(jobs.get(row["trunk_id"], ""))
        if slurm and (status in ("missing", "interrupted", "failed") or (status == "training" and slurm == "PENDING")):
            status = "queued"
        cooldown = runs.get(row["run_id"], {}).get("recipe", {}).get("cooldown", 0.0)
        budget = row["flops_budget"]
        before, branch = branches.get(row["trunk_id"], 0.0), (1 - cooldown) * budget
        branches[row["trunk_id"]] = branch
        spent, rate = (budget, None) if status in ENDED else progress(results, row, branch)
        left = max(0.0, branch - max(spent, before)) + max(0.0, budget - max(spent, branch))
        states.append(
            {
                "run_id": row["run_id"],
                "status": status,
                "error": record.get("error"),
                "share": round(min(1.0, spent / budget), 4),
                "flops_left": round(left),
                "flops_per_s": rate if status == "training" else None,
            }
        )
    return states


def progress(results: Results, row: dict[str, Any], branch_at: float) -> tuple[float, float | None]:
    """FLOPs that a run has behind it, those of its trunk included, and the FLOP/s of its last lines when they are fresh."""
    own, trunk = results.run(row["run_id"]) / "metrics.jsonl", results.trunk(row["trunk_id"]) / "metrics.jsonl"
    lines = read_lines(own, STEP_KEYS)
    path = own if lines and lines[-1]["flops_spent"] > branch_at else trunk
    lines = [line for line in read_lines(path, STEP_KEYS) if path == own or line["flops_spent"] <= branch_at]
    if not lines:
        return 0.0, None
    last = [line for line in lines[-2:] if time.time() - path.stat().st_mtime < FRESH_SECONDS]
    seconds = last[1]["segment_seconds"] - last[0]["segment_seconds"] if len(last) == 2 else 0.0
    rate = (last[1]["flops_spent"] - last[0]["flops_spent"]) / seconds if seconds > 0 else None
    return lines[-1]["flops_spent"], rate


def summary(states: list[dict[str, Any]]) -> str:
    """Counts by status, and when training will be done at the rate of the runs that train now."""
    counts = ", ".join(f"{number} {status}" for status, number in Counter(state["status"] for state in states).items())
    left = sum(state["flops_left"] for state in states)
    rate = sum(state["flops_per_s"] or 0.0 for state in states)
    eta = f"; {left:.2g} FLOPs left at {rate:.2g} FLOP/s, ETA {duration(left / rate)}" if rate else ""
    return f"{len(states)} runs: {counts}{eta}"
