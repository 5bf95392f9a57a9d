"""The table: derived from the runs' records, written as CSV, read back with every column checked."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.files import read_json, read_lines, write_text
from bench.results.columns import ALL_COLUMNS, COLUMNS, TEXT_COLUMNS
from bench.results.folder import Results

SEARCH_ENDING = "-learning-rates"
"""Of the name of an experiment that searches another's learning rates."""
REFERENCE_ENDINGS = ("-reference", "")
"""Of the name of a folder that holds an experiment's committed results."""


def save_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; missing cells are empty."""
    write_text(path, frame.to_csv(index=False))


def build_table(results: Results, plan: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Derive the table from the runs' records: evaluated rows, failed runs, and planned runs that are missing."""
    rows: list[dict[str, Any]] = []
    for planned in plan:
        folder = results.run_folder(planned["run_id"])
        record = folder.record
        base = {**planned, **record.training, "status": record.status, "error": record.error}
        base["off_plan"] = off_plan(planned, record.training)
        evaluations = read_lines(folder.evals) if record.status == "done" else []
        rows += [{**base, **evaluation} for evaluation in evaluations] or [base]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def current_table(results: Results) -> pd.DataFrame:
    """The table as the records are now, as `load_table` would read it; nothing is written.

    Raises:
        ValueError: when there is no plan, or a record is damaged.
    """
    built = build_table(results, read_plan(results))
    return read_frame(io.StringIO(built.to_csv(index=False))).reindex(columns=list(COLUMNS)).copy()  # in one block: read often


COUNTED = ("steps", "flops_per_image")
"""What training must bear out of a plan."""
OFF_PLAN = 0.03
"""Share by which a run may differ from its plan. Planned costs are means over 16 draws of a loss's shapes; the committed runs of
MAR, whose shapes are random, differ by at most .7 % (docs/log.md, 2026-11-21)."""


def off_plan(planned: dict[str, Any], trained: dict[str, Any]) -> str | None:
    """Which of a run's counts differ from its plan, for a reader; None where none does."""
    found = [
        f"{name} {trained[name]} for {planned[name]:.0f} planned"
        for name in COUNTED
        if name in trained and not abs(trained[name] / planned[name] - 1) <= OFF_PLAN
    ]
    return ", ".join(found) or None


def read_plan(results: Results) -> list[dict[str, Any]]:
    """The rows of a folder's plan.csv: what its runs were counted to cost.

    Raises:
        ValueError: when there is none, or it names no runs.
    """
    if not results.plan.exists():
        raise ValueError(f"{results.plan} does not exist; make it with `paradigm-bench plan --results {results.root}`")
    planned = read_frame(results.plan)
    lacking = [name for name in ("run_id", *COUNTED) if name not in planned.columns or planned[name].isna().any()]
    if lacking:
        again = f"make it again with `paradigm-bench plan --results {results.root}`"
        raise ValueError(f"{results.plan} lacks {', '.join(lacking)}; {again}")
    return planned.to_dict("records")


def load_table(folder: str | Path) -> pd.DataFrame:
    """The results table of a folder as a DataFrame with the columns of COLUMNS; those newer than the table are empty.

    Raises:
        ValueError: when there is no table, it lacks columns, or one of them holds what it cannot.
    """
    path = Results(Path(folder)).table
    if not path.exists():
        raise ValueError(f"{path} does not exist; run `make sweep RESULTS={folder}` first")
    frame = read_frame(path)
    needed = [column.name for column in ALL_COLUMNS if column.in_table and column.since == 1]
    lacking = [name for name in needed if name not in frame.columns]
    if lacking:
        raise ValueError(f"{path} lacks the columns {', '.join(lacking)}; rebuild it with `paradigm-bench table {folder}`")
    if frame[["run_id", "method"]].isna().any(axis=None):
        raise ValueError(f"{path} has rows without run_id or method; rebuild it with `paradigm-bench table {folder}`")
    return frame.reindex(columns=list(COLUMNS))


def load_search(results: Results) -> pd.DataFrame | None:
    """The learning-rate search behind a sweep: the table of the folder beside it with its name, or its experiment's, and
    -learning-rates; None when there is none.

    Raises:
        ValueError: when there is a folder whose table cannot be read.
    """
    found = _beside(results, (results.root.resolve().name, _experiment_name(results)), (SEARCH_ENDING,))
    return load_table(found.root) if found else None


def load_reference(results: Results) -> tuple[str, pd.DataFrame] | None:
    """The committed sweep of the same experiment: name and table of the folder beside this one that has the experiment's name,
    with -reference or without; None when there is none, or it is this folder.

    Raises:
        ValueError: when there is a folder whose table cannot be read.
    """
    found = _beside(results, (_experiment_name(results),), REFERENCE_ENDINGS)
    return (found.root.name, load_table(found.root)) if found and found.root != results.root.resolve() else None


def _experiment_name(results: Results) -> str:
    """Name of the experiment that the folder belongs to; empty where it belongs to none."""
    return str(read_json(results.experiment).get("name", "")) if results.experiment.exists() else ""


def _beside(results: Results, names: tuple[str, ...], endings: tuple[str, ...]) -> Results | None:
    """The first folder beside this one with one of the names, empty ones apart, and endings that has a table; it may be this."""
    beside = (Results(results.root.resolve().with_name(name + ending)) for name in names if name for ending in endings)
    return next((folder for folder in beside if folder.table.exists()), None)


def read_frame(path: Path | io.StringIO) -> pd.DataFrame:
    """A table of ALL_COLUMNS, or some of them, from a file of CSV or its text: each read as the kind that it is.

    Raises:
        ValueError: naming a column that holds something else.
    """
    frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str))
    for column in ALL_COLUMNS:
        if column.name not in frame.columns or column.kind == "text":
            continue
        cells = frame[column.name]
        held = cells.dropna().isin([True, False]).all() if column.kind == "truth" else pd.api.types.is_numeric_dtype(cells)
        if not held:
            kind = "true or false" if column.kind == "truth" else "numbers"
            raise ValueError(f"{path}: column {column.name} must hold {kind}; restore the file, or derive it again")
    return frame


def loss_rows(frame: pd.DataFrame, *, ema: bool = True) -> pd.DataFrame:
    """A finished row of each run, at whichever setting: what is known of its weights without a sampler. Runs that were sampled on
    validation conditions alone are left out."""
    rows = frame[(frame["status"] == "done") & (frame["split"] != "validation") & (frame["ema"] == ema)]
    return rows.drop_duplicates("run_id")


TUNED = ("prompt_accuracy", "clip_score", "fid")
"""Metrics that settings are chosen for; a table that lacks the wanted one is read at the next of these."""


def finished_rows(frame: pd.DataFrame, tuned_for: str = "prompt_accuracy", *, ema: bool = True) -> pd.DataFrame:
    """Finished rows on the test captions, at the setting chosen for a metric: one per run."""
    rows = frame[(frame["status"] == "done") & (frame["split"] == "test") & (frame["ema"] == ema)]
    chosen = [metrics.split() if isinstance(metrics, str) else [] for metrics in rows["tuned_for"]]
    target = next((metric for metric in (tuned_for, *TUNED) if any(metric in metrics for metrics in chosen)), tuned_for)
    return rows[pd.Series([target in metrics for metrics in chosen], index=rows.index, dtype=bool)]
