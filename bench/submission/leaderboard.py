"""The leaderboard: submissions of one protocol in one standing, per division and budget; as a page, a table and exports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.comparison import Analysis, analyse
from bench.analysis.side_by_side import check_one_protocol
from bench.analysis.standing import SPEEDS, Standing, standings
from bench.files import write_text
from bench.progress import format_number
from bench.report.html import render_still
from bench.report.tables import standing_tables
from bench.results.table import save_frame
from bench.submission.croissant import describe_world
from bench.submission.every_eval_ever import evaluation_record
from bench.submission.folder import LeaderboardFolder
from bench.submission.submission import Submission
from bench.submission.verdict import Verdict

DRAWS = 1
"""Of fits, none of which a standing reads."""
Judged = tuple[Submission, Verdict]


@dataclass(frozen=True)
class Board:
    """All submissions of a division at one budget."""

    division: str
    budget: float
    analysis: Analysis


def write_leaderboard(judged: Sequence[Judged], out: Path) -> list[Path]:
    """Write page, table and exports of submissions that keep the rules; returns what was written.

    Raises:
        ValueError: when they are of several protocols, or two have one name.
    """
    names = [submission.name for submission, _ in judged]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two submissions are called {repeated[0]}; rename one of the folders")
    sweeps = {submission.name: analyse(submission.rebuilt, DRAWS) for submission, _ in judged}
    protocol = check_one_protocol(sweeps)
    folder, found = LeaderboardFolder(out), list(boards(judged))
    write_text(folder.page, render_still("leaderboard.html.jinja", _content(judged, found, protocol)))
    out.mkdir(parents=True, exist_ok=True)
    save_frame(standing_frame(found), folder.standing)
    written = [folder.page, folder.standing]
    for submission, verdict in judged:
        for method in sweeps[submission.name].methods:
            path = folder.evaluation(submission.name, method)
            record = evaluation_record(submission, verdict, sweeps[submission.name], method)
            write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
            written.append(path)
    for world in sorted({data for submission, _ in judged if isinstance(data := submission.identity.data, str)}):
        captions, metadata = describe_world(world, folder.captions(world).name)
        write_text(folder.captions(world), captions)
        write_text(folder.croissant(world), json.dumps(metadata, indent=1) + "\n")
        written += [folder.captions(world), folder.croissant(world)]
    return written


def boards(judged: Sequence[Judged]) -> list[Board]:
    """A board for each division and budget, the closed division and the largest budget first."""
    found = []
    for division in ("closed", "open"):
        members = [submission for submission, verdict in judged if verdict.division == division]
        if not members:
            continue
        frame = together(members)
        for budget in sorted(frame["flops_budget"].dropna().unique(), reverse=True):
            analysis = analyse(frame[frame["flops_budget"] == budget], DRAWS)
            if standings(analysis):
                found.append(Board(division, float(budget), analysis))
    return found


def together(members: Sequence[Submission]) -> pd.DataFrame:
    """The rows of several submissions as one table: methods and runs carry their submission's name. Speed stands only where all
    were measured on one kind of machine."""
    frames = []
    for submission in members:
        rows = submission.rebuilt
        frames.append(
            rows.assign(
                method=rows["method"] + f" ({submission.name})",
                run_id=f"{submission.name}/" + rows["run_id"],
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    kinds = {
        tuple(str(record.training.get(name)) for name in ("processor", "device", "num_threads"))
        for submission in members
        for record in submission.records.values()
    }
    return frame if len(kinds) == 1 else frame.assign(**dict.fromkeys(SPEEDS, float("nan")))


def standing_frame(found: Sequence[Board]) -> pd.DataFrame:
    """Every cell of every standing as a row: division, budget, the metric samplers were chosen for, place, measure, numbers."""
    rows = []
    for board in found:
        for standing in standings(board.analysis):
            rows += [{"division": board.division, "flops_budget": board.budget, **row} for row in _cells(standing)]
    return pd.DataFrame(rows)


def _cells(standing: Standing) -> list[dict[str, Any]]:
    return [
        {
            "sampler_chosen_for": standing.chosen_for,
            "place": number,
            "method": place.method,
            "size": place.size,
            "sampler": place.setting,
            "measure": name,
            "mean": cell.mean,
            "lowest_seed": cell.low,
            "highest_seed": cell.high,
            "num_seeds": cell.num_seeds,
            "mark": cell.mark,
        }
        for number, place in enumerate(standing.places, start=1)
        for name, cell in place.cells.items()
    ]


def _content(judged: Sequence[Judged], found: Sequence[Board], protocol: str) -> dict[str, Any]:
    """What the template names."""
    return {
        "title": f"paradigm-bench: leaderboard of {len(judged)} submission{'s' if len(judged) > 1 else ''}",
        "protocol": protocol,
        "divisions": [
            {
                "name": division,
                "boards": [
                    {"budget": format_number(board.budget), "standings": standing_tables(board.analysis)}
                    for board in found
                    if board.division == division
                ],
            }
            for division in dict.fromkeys(board.division for board in found)
        ],
        "submissions": [_about(submission, verdict) for submission, verdict in judged],
    }


def _about(submission: Submission, verdict: Verdict) -> dict[str, Any]:
    """What the page says of a submission."""
    hardware, plugins = submission.about("hardware"), submission.about("plugins")
    device = hardware.get("device", "")
    return {
        "name": submission.name,
        "experiment": f"{submission.identity.name} at {format_number(submission.identity.budget)} FLOPs",
        "runs": len(submission.runs),
        "division": verdict.division,
        "open_because": list(verdict.open_because),
        "in_band": verdict.num_in_band,
        "hardware": hardware.get("processor", "") if device == "cpu" else device,
        "plugins": [f"{name} {about.get('commit', '')}" for name, about in sorted(plugins.items()) if isinstance(about, dict)],
    }
