"""A results folder as a submission: everything that the rules read, read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.config.run import Run
from bench.files import read_json
from bench.results.folder import Results
from bench.results.identity import Identity, read_identity
from bench.results.record import Record
from bench.results.table import current_table, load_table, read_plan


@dataclass(frozen=True)
class Submission:
    """What a folder says of itself."""

    results: Results
    identity: Identity
    """The experiment: every run's configuration."""
    planned: tuple[str, ...]
    """Run ids of plan.csv in their order."""
    records: Mapping[str, Record]
    """By run_id; a run without a folder has an empty record."""
    rebuilt: pd.DataFrame
    """The table as the records give it."""
    table: pd.DataFrame
    """The table that was handed in."""
    environment: Mapping[str, Any]
    """Hardware, packages and plugins; empty where there is none."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.results.root.resolve().name

    @property
    def runs(self) -> Mapping[str, Run]:
        """By run_id."""
        return self.identity.runs

    def about(self, name: str) -> Mapping[str, Any]:
        """A part of the environment, such as "plugins"; empty where it is missing or no mapping."""
        found = self.environment.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def smallest_rung(self) -> list[Run]:
        """Each method's runs at its smallest budget: what a replay repeats."""
        least: dict[str, int] = {}
        for run in self.runs.values():
            least[run.method] = min(run.flops_budget, least.get(run.method, run.flops_budget))
        return [run for run in self.runs.values() if run.flops_budget == least[run.method]]


def without_seed(run: Run) -> str:
    """What decides a run but its seed, as text: equal for runs that differ in their seed alone."""
    return json.dumps({**run.content(), "seed": None}, sort_keys=True)


def read_submission(root: Path) -> Submission:
    """A results folder as a submission.

    Raises:
        ValueError: naming a file that is missing or damaged.
    """
    results = Results(root)
    identity = read_identity(results)
    planned = tuple(str(row["run_id"]) for row in read_plan(results))
    return Submission(
        results=results,
        identity=identity,
        planned=planned,
        records={run_id: results.run_folder(run_id).record for run_id in dict.fromkeys([*identity.runs, *planned])},
        rebuilt=current_table(results),
        table=load_table(root),
        environment=read_json(results.environment) if results.environment.exists() else {},
    )
