"""What a results folder knows by itself: the jobs of its experiment, and its trained runs ready to sample."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.build import build_paradigm
from bench.conditioning import Condition
from bench.config import Evaluation, Method, Run
from bench.instrument import Instrument
from bench.job import Job
from bench.machine import this_machine
from bench.results import Results
from bench.train import load_weights


def stored_jobs(results: Results) -> list[Job]:
    """One job per trunk of the experiment that the folder belongs to, from its experiment.json.

    Raises:
        ValueError: when the folder holds no experiment.
    """
    if not results.experiment.exists():
        raise ValueError(f"{results.root} holds no experiment; make it with `paradigm-bench plan --results {results.root}`")
    stored = json.loads(results.experiment.read_text())
    methods = {name: Method(**content) for name, content in stored["methods"].items()}
    groups: dict[str, list[Run]] = {}
    for text in stored["runs"].values():
        run = Run.from_json(json.dumps(text))
        groups.setdefault(run.trunk_id, []).append(run)
    return [
        Job(
            root=results.root,
            world=stored["world"],
            runs=tuple(sorted(group, key=lambda r: r.flops_budget)),
            method=methods[group[0].method],
            evaluation=Evaluation(**stored["evaluation"]),
            machine=this_machine(),
        )
        for group in groups.values()
    ]


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, ready to sample."""

    instrument: Instrument
    run: Run
    method: Method
    folder: Path

    def draw(self, words: Tensor, guidance: float, seed: int) -> Tensor:
        """uint8 images (n, 3, H, H) for condition tokens (n, M), from the averaged weights."""
        space = self.instrument.space(self.run.tokenizer)
        paradigm = build_paradigm(self.run, space, self.instrument.conditions)
        load_weights(paradigm, self.folder / "weights.safetensors", ema=True)
        with torch.inference_mode():
            tokens = paradigm.sample(
                Condition.of(words),
                steps=self.method.sampler_steps,
                guidance=guidance,
                temperature=self.method.temperature,
                generator=torch.Generator().manual_seed(seed),
            )
            return self.instrument.autoencoder(self.run.tokenizer).decode(tokens)


def load_trained(folder: Path) -> TrainedRun:
    """A finished run from its folder results/NAME/runs/RUN_ID.

    Raises:
        ValueError: when there is no trained run.
    """
    if not (folder / "weights.safetensors").exists():
        raise ValueError(f"{folder} holds no trained run (no weights.safetensors); `paradigm-bench status` lists the runs")
    for job in stored_jobs(Results(folder.parent.parent)):
        for run in job.runs:
            if run.run_id == folder.name:
                return TrainedRun(Instrument(job.world), run, job.method, folder)
    raise ValueError(f"{folder.parent.parent} plans no run {folder.name!r}")
