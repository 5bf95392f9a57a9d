"""What a results folder belongs to, experiment.json: written once and read back by all that runs or looks at single runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.config.data import ImageData
from bench.config.experiment import Evaluation, Method
from bench.config.run import Run
from bench.files import read_json, write_text
from bench.results.folder import Results


@dataclass(frozen=True, kw_only=True)
class Identity:
    """An experiment at a budget: every run's configuration, and all that is needed to train, evaluate and sample it."""

    name: str
    budget: int
    data: str | ImageData
    methods: Mapping[str, Method]
    """By name."""
    evaluation: Evaluation
    runs: Mapping[str, Run]
    """By run_id."""

    @property
    def trunks(self) -> dict[str, list[Run]]:
        """Runs by trunk_id, budgets ascending."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs.values():
            groups.setdefault(run.trunk_id, []).append(run)
        return {name: sorted(group, key=lambda run: run.flops_budget) for name, group in groups.items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Identity:
        """Inverse of dataclasses.asdict, also after a JSON round trip.

        Raises:
            KeyError, TypeError, AttributeError: when it is none of this version.
        """
        data = content["data"]
        return cls(
            name=content["name"],
            budget=content["budget"],
            data=data if isinstance(data, str) else ImageData.from_dict(data),
            methods={name: Method.from_dict(method) for name, method in content["methods"].items()},
            evaluation=Evaluation.from_dict(content["evaluation"]),
            runs={run_id: Run.from_dict(run) for run_id, run in content["runs"].items()},
        )


def read_identity(results: Results) -> Identity:
    """What a results folder belongs to.

    Raises:
        ValueError: when the folder holds no experiment, or one of another version.
    """
    if not results.experiment.exists():
        raise ValueError(f"{results.root} holds no experiment; make it with `paradigm-bench plan --results {results.root}`")
    content = read_json(results.experiment)
    try:
        return Identity.from_dict(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{results.experiment} is not of this version of paradigm-bench ({type(error).__name__}: {error})"
        raise ValueError(f"{reason}; plan the experiment in another folder") from error


def bind_experiment(results: Results, identity: Identity) -> None:
    """Make a results folder this experiment's, or check that it is.

    Raises:
        ValueError: when it holds another experiment, or cannot be written.
    """
    ours = _content(identity)
    if results.experiment.exists():
        found = read_json(results.experiment)
        with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError):  # of another version
            found = _content(Identity.from_dict(found))  # settings that came later are at their defaults
        if _without_path(found) != _without_path(ours):
            theirs = f"{found.get('name')} at BUDGET={found.get('budget')}"
            ours_named = f"{identity.name} at BUDGET={identity.budget}"
            named = (
                "the same by name; settings, weights or a plugin's source changed"
                if theirs == ours_named
                else f"not {ours_named}"
            )
            raise ValueError(
                f"{results.root} holds another experiment or budget ({theirs}, {named}); give RESULTS another folder"
            )
        if found == ours:
            return
    try:
        results.root.mkdir(parents=True, exist_ok=True)
        write_text(results.experiment, json.dumps(ours, indent=1))
    except OSError as error:
        reason = f"cannot write to {results.root}: {error.strerror}; give RESULTS a folder that you may write"
        raise ValueError(reason) from error


def _content(identity: Identity) -> dict[str, Any]:
    """What experiment.json holds."""
    runs = {run_id: run.content() for run_id, run in identity.runs.items()}
    content: dict[str, Any] = json.loads(
        json.dumps({**asdict(identity), "runs": runs, "evaluation": identity.evaluation.content})
    )
    return content


def _without_path(content: dict[str, Any]) -> dict[str, Any]:
    """An experiment's identity, wherever its images lie."""
    data = content.get("data")
    return {**content, "data": {**data, "path": ""}} if isinstance(data, dict) else content
