"""What a results folder knows by itself: the jobs of its experiment, and its trained runs ready to sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import Evaluation, ImageData, Method, Run
from bench.instrument import Instrument, open_instrument
from bench.job import Job
from bench.machine import this_machine
from bench.results import Results, read_json

if TYPE_CHECKING:
    from bench.evaluate.run import Sampler


def stored_jobs(results: Results) -> list[Job]:
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


def _jobs(results: Results, stored: dict[str, Any]) -> list[Job]:
    methods = {name: Method.from_dict(content) for name, content in stored["methods"].items()}
    data = stored["data"] if isinstance(stored["data"], str) else ImageData.from_dict(stored["data"])
    groups: dict[str, list[Run]] = {}
    for text in stored["runs"].values():
        run = Run.from_json(json.dumps(text))
        groups.setdefault(run.trunk_id, []).append(run)
    return [
        Job(
            root=results.root,
            data=data,
            runs=tuple(sorted(group, key=lambda r: r.flops_budget)),
            method=methods[group[0].method],
            evaluation=Evaluation(**stored["evaluation"]),
            machine=this_machine(),
        )
        for group in groups.values()
    ]


def load_sampler(folder: Path) -> tuple[Sampler, Instrument]:
    """A trained run from its folder results/NAME/runs/RUN_ID, ready to sample, and the instrument that reads conditions.

    Raises:
        ValueError: when there is no trained run.
    """
    from bench.evaluate.run import Sampler  # imported late: a sweep reads folders too and needs no evaluator here

    weights = folder / "weights.safetensors"
    if not weights.exists():
        raise ValueError(f"{folder} holds no trained run (no weights.safetensors); `paradigm-bench status` lists the runs")
    for job in stored_jobs(Results(folder.parent.parent)):
        for run in job.runs:
            if run.run_id == folder.name:
                instrument = open_instrument(job.data)
                return Sampler(instrument, run, job.method, weights), instrument
    raise ValueError(f"{folder.parent.parent} plans no run {folder.name!r}")
