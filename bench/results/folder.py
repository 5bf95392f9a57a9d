"""The results folder: where each stage writes. The only place that knows a file's name. No torch.

    results/<name>/experiment.json     what every run is (identity.py); read by status, run, evaluate and sample
    results/<name>/plan.csv            what every run was counted to cost; read by table
    results/<name>/table.csv report.html figures/
    results/<name>/forecast.json       what was predicted before it was trained
    results/<name>/runs/<run_id>/      run.json metrics.jsonl evals.jsonl weights.safetensors samples.png logs/{csv,tensorboard}/
    results/<name>/trunks/<trunk_id>/  metrics.jsonl and checkpoints to branch from; beside it <trunk_id>.lock
    results/<name>/cache/              latents, reference features, what all runs share
    results/<name>/slurm/              jobs.json and the logs of a cluster's tasks

JSONL is the truth, appended and flushed; `table.csv` is derived, one row per run and sampler setting. Missing is empty, never 0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.run import Run
from bench.files import read_json, write_text
from bench.results.record import Record

STEP_KEYS = ("step", "flops_spent", "loss", "learning_rate", "segment_seconds")
"""What every line of a metrics file has."""


def checkpoint_path(folder: Path, flops: float) -> Path:
    """The checkpoint of a folder that was written at so many FLOPs."""
    return folder / f"{round(flops)}.ckpt"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder with the FLOPs at which they were written, ascending."""
    return sorted((int(path.stem), path) for path in folder.glob("*.ckpt") if path.stem.isdigit())


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """What a segment of training writes, be it of a trunk or of a run's cooldown."""

    path: Path

    @property
    def metrics(self) -> Path:
        """One JSON line every few steps."""
        return self.path / "metrics.jsonl"

    @property
    def running(self) -> Path:
        """Folder of the checkpoints from which a segment that was killed goes on."""
        return self.path / "running"


@dataclass(frozen=True, slots=True)
class TrunkFolder(TrainingFolder):
    """Files of a trunk, which runs of all budgets branch off."""

    @property
    def lock(self) -> Path:
        """Held by the process that works on the trunk."""
        return self.path.with_name(f"{self.path.name}.lock")

    def branch(self, flops: float) -> Path:
        """The checkpoint from which a run cools down."""
        return checkpoint_path(self.path, flops)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds of the trunk up to each branch, by the branch's FLOPs as text."""
        path = self.path / "seconds.json"
        return read_json(path) if path.exists() else {}

    def save_seconds(self, seconds: dict[str, float]) -> None:
        """Write them, whole."""
        write_text(self.path / "seconds.json", json.dumps(seconds))


@dataclass(frozen=True, slots=True)
class RunFolder(TrainingFolder):
    """Files of a run: its cooldown, weights and evaluation."""

    @property
    def weights(self) -> Path:
        """Raw and averaged parameters; there when the run is trained."""
        return self.path / "weights.safetensors"

    @property
    def evals(self) -> Path:
        """One JSON line per row of the table."""
        return self.path / "evals.jsonl"

    @property
    def samples(self) -> Path:
        """The grid of test captions."""
        return self.path / "samples.png"

    @property
    def error(self) -> Path:
        """The traceback of a failed run."""
        return self.path / "error.txt"

    @property
    def record_file(self) -> Path:
        """How far the run is."""
        return self.path / "run.json"

    @property
    def record(self) -> Record:
        """What run.json says; an empty record where there is none.

        Raises:
            ValueError: when it is damaged.
        """
        content = self._content()
        try:
            return Record.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{self.record_file} is damaged ({error}); delete it and train the run again") from error

    def save_record(self, run: Run, **changes: Any) -> None:
        """Change some fields of run.json, written whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.record_file, json.dumps({**self._content(), "run": run.content(), **changes}, indent=1))

    def _content(self) -> dict[str, Any]:
        return read_json(self.record_file) if self.record_file.exists() else {}


@dataclass(frozen=True, slots=True)
class Results:
    """Paths of one results folder."""

    root: Path

    @property
    def experiment(self) -> Path:
        """What the folder belongs to."""
        return self.root / "experiment.json"

    @property
    def plan(self) -> Path:
        """The table of planned runs."""
        return self.root / "plan.csv"

    @property
    def table(self) -> Path:
        """The table of results."""
        return self.root / "table.csv"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

    @property
    def cache(self) -> Path:
        """What runs of this folder share."""
        return self.root / "cache"

    def cached(self, name: str) -> Path:
        """A small record that runs of this folder share."""
        return self.cache / f"{name}.json"

    @property
    def slurm(self) -> Path:
        """Folder of a cluster's logs."""
        return self.root / "slurm"

    @property
    def slurm_jobs(self) -> Path:
        """The numbers of the jobs that were submitted."""
        return self.slurm / "jobs.json"

    @property
    def forecast(self) -> Path:
        """What was predicted before it was trained."""
        return self.root / "forecast.json"

    def run_folder(self, run_id: str) -> RunFolder:
        """Files of a run."""
        return RunFolder(self.root / "runs" / run_id)

    def trunk_folder(self, trunk_id: str) -> TrunkFolder:
        """Files of a trunk."""
        return TrunkFolder(self.root / "trunks" / trunk_id)
