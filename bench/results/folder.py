"""The results folder: where each stage writes. The only place that knows a file's name. No torch.

    results/<name>/experiment.json plan.csv table.csv report.html figures/
    results/<name>/runs/<run_id>/run.json metrics.jsonl evals.jsonl weights.safetensors samples.png logs/{csv,tensorboard}/
    results/<name>/trunks/<trunk_id>/  checkpoints to branch from
    results/<name>/cache/              latents, reference features

JSONL is the truth, appended and flushed; `table.csv` is derived, one row per run and sampler setting. Missing is empty, never 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.files import read_json, write_text

STEP_KEYS = ("step", "flops_spent", "loss", "learning_rate", "segment_seconds")
"""What every line of metrics.jsonl has."""


class Results:
    """Paths of one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def plan(self) -> Path:
        """The table of planned runs."""
        return self.root / "plan.csv"

    @property
    def table(self) -> Path:
        """The table of results."""
        return self.root / "table.csv"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

    @property
    def cache(self) -> Path:
        """What runs of this folder share."""
        return self.root / "cache"

    @property
    def experiment(self) -> Path:
        """What the folder belongs to."""
        return self.root / "experiment.json"

    def run(self, run_id: str) -> Path:
        """Folder of a run."""
        return self.root / "runs" / run_id

    def record(self, run_id: str) -> dict[str, Any]:
        """A run's run.json; empty when there is none."""
        path = self.run(run_id) / "run.json"
        return read_json(path) if path.exists() else {}

    def trunk(self, trunk_id: str) -> Path:
        """Folder of a trunk's checkpoints."""
        return self.root / "trunks" / trunk_id

    def claim(self, identity: dict[str, Any]) -> None:
        """Make the folder this experiment's, or check that it is.

        Raises:
            ValueError: when it holds another experiment, or cannot be written.
        """
        text = json.dumps(identity, indent=1, sort_keys=True)
        if self.experiment.exists():
            found = read_json(self.experiment)
            if _without_path(found) != _without_path(json.loads(text)):
                theirs = f"{found.get('name')} at BUDGET={found.get('budget')}"
                raise ValueError(
                    f"{self.root} holds another experiment or budget ({theirs}, not {identity['name']} at "
                    f"BUDGET={identity['budget']}); give RESULTS another folder"
                )
            if found == json.loads(text):
                return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_text(self.experiment, text)
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.root}: {error.strerror}; give RESULTS a folder that you may write"
            ) from error


def _without_path(identity: dict[str, Any]) -> dict[str, Any]:
    """An experiment's identity, wherever its images lie."""
    data = identity.get("data")
    return {**identity, "data": {**data, "path": ""}} if isinstance(data, dict) else identity
