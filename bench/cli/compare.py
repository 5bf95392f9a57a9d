"""`paradigm-bench compare A B [C...]`: sweeps of one protocol side by side, each against the first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.analysis.comparison import Analysis
    from bench.analysis.side_by_side import CellDifference

SHARED = ("device", "dtype", "flop_rule", "git_sha", "tokenizer")
"""Columns of the table that say under what a sweep ran; experiment.json does not."""


def compare(options: argparse.Namespace) -> None:
    """Print how every cell of the later sweeps differs from the first one's, and what differs between the experiments."""
    from bench.analysis.comparison import analyse
    from bench.analysis.side_by_side import cell_differences, check_one_protocol, experiment_differences, only_in_one
    from bench.files import read_json
    from bench.results.folder import Results
    from bench.results.table import load_table

    folders = [str(folder) for folder in options.results]
    if len(set(folders)) != len(folders) or len(folders) < 2:
        raise UserError("compare needs two or more different results folders, such as results/a results/b")
    identities: dict[str, dict[str, Any]] = {}
    sweeps: dict[str, Analysis] = {}
    for folder in folders:
        experiment = Results(Path(folder)).experiment
        identities[folder] = read_json(experiment) if experiment.exists() else {}
        sweeps[folder] = analyse(load_table(folder), identity=identities[folder] or None)
    protocol = check_one_protocol(sweeps)
    first, *others = folders
    found: list[dict[str, Any]] = []
    for other in others:
        differs = experiment_differences(identities[first], identities[other])
        differs += _conditions(sweeps[first], sweeps[other])
        lone = only_in_one(sweeps[first], sweeps[other])
        cells = cell_differences(sweeps[first], sweeps[other])
        found.append({"first": first, "second": other, "protocol": protocol, "differs": differs, "only": lone, "cells": cells})
    for one in found:
        if options.json:
            print(json.dumps({**one, "cells": [_cell_json(cell) for cell in one["cells"]]}))
        else:
            print("\n".join(_text(one)))


def _conditions(first: Analysis, second: Analysis) -> Iterator[tuple[str, str, str]]:
    """Columns of SHARED in which two tables differ."""
    for name in SHARED:
        a, b = (", ".join(sorted(map(str, each.frame[name].dropna().unique()))) for each in (first, second))
        if a != b:
            yield name, a, b


def _cell_json(cell: CellDifference) -> dict[str, Any]:
    """A cell with null where there is no number."""
    return {**asdict(cell), "p_value": None if cell.effect is None else cell.p_value, "said": cell.said}


def _text(found: dict[str, Any]) -> Iterator[str]:
    """The comparison of two sweeps as lines."""
    import pandas as pd

    from bench.analysis.metrics import METRICS
    from bench.progress import format_number
    from bench.report.tables import interval_text

    yield f"{found['second']} (B) against {found['first']} (A), protocol {found['protocol']}"
    yield "what differs:" if found["differs"] else "what differs: nothing that the experiments and tables name"
    yield from (f"  {path}: {a} (A), {b} (B)" for path, a, b in found["differs"])
    for name, lone in zip(("A", "B"), found["only"], strict=True):
        if lone:
            yield f"only in {name}: {', '.join(lone)}"
    if not found["cells"]:
        yield "no method has finished runs at one budget in both"
        return
    rows = []
    for cell in found["cells"]:
        effect, kind = cell.effect, METRICS[cell.metric].effect
        shown = f"{kind} {interval_text(effect)}" if effect else ""
        rows.append(
            {
                "metric": cell.metric,
                "method": cell.method,
                "FLOPs": format_number(cell.budget),
                "A": f"{format_number(cell.first)} ({cell.num_seeds[0]})",
                "B": f"{format_number(cell.second)} ({cell.num_seeds[1]})",
                "B over A [95 %]": shown,
                "p (Holm)": format_number(cell.p_value) if effect else "",
                "B is": cell.said,
            }
        )
    yield from pd.DataFrame(rows).to_string(index=False).splitlines()
    yield "means over the seeds (their number) of each sweep's best size; Welch's t, Holm-corrected within a metric at 5 %"
