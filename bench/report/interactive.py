"""What the page's charts, run table and toolbars draw: the table's own numbers as JSON values.

Every number is one of table.csv, a mean of some of them, or a point of a fitted law.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.fronts import pareto
from bench.analysis.metrics import FITTED, METRICS
from bench.analysis.standing import BESIDE, SPEEDS, with_speed
from bench.analysis.tuning import SETTING, setting_text, tried_rows
from bench.progress import format_number
from bench.report.scaling_figures import autoencoder_limits
from bench.report.style import COLORS, MARKERS, look, setting_of, shown_values, uses_log_scale
from bench.results.columns import ALL_COLUMNS
from bench.results.table import finished_rows

AXES = {
    "flops_budget": "training FLOPs per run",
    "num_params": "trainable parameters",
    "images_seen": "training images seen",
    "train_seconds": "training time, s",
    "flops_per_sample": "FLOPs per sample",
}
"""Columns that quality may be drawn against, run by run."""
EXPLORED = ("-against-training-flops", "-by-method", "-against-sampling-flops", "-against-speed")
"""Endings of the names of figures whose content the interactive charts show."""
SYMBOLS = dict(zip(MARKERS, "circle square triangle diamond wye cross star times asterisk plus hexagon".split(), strict=True))
"""What a marker is called in the charts of the page."""
DASHES = ("", "6 3", "6 3 1 3", "1 3", "9 4", "4 2 1 2 1 2", "1 5")
CURVE_POINTS = 40


def page_data(analysis: Analysis, rows: pd.DataFrame) -> dict[str, Any]:
    """Everything that the page's scripts read.

    Args:
        analysis: of the table.
        rows: those of the run table, with the table's own index.
    """
    places = {index: place for place, index in enumerate(rows.index)}
    measured = [name for name in METRICS if len(analysis.rows(name))]
    return {
        "methods": [_method(method, analysis.methods) for method in analysis.methods],
        "axes": {name: AXES[name] for name in _axes(rows)},
        "columns": [_column(name, rows) for name in COLUMN_ORDER if rows[name].notna().any()],
        "metrics": {name: _metric(analysis, name, places) for name in measured},
    }


def _axes(rows: pd.DataFrame) -> list[str]:
    """The columns of AXES that vary, the first one first shown: where there is one budget, the cost of sampling."""
    varying = [name for name in AXES if rows[name].nunique() > 1] or [name for name in AXES if rows[name].notna().any()]
    return sorted(varying, key=lambda name: name != "flops_per_sample") if "flops_budget" not in varying else varying


def table_rows(analysis: Analysis, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the run table, with the table's own index: what the charts draw, and runs that are not done."""
    chosen = [finished_rows(analysis.frame), *(analysis.rows(name) for name in METRICS)]
    wanted = set().union(*(rows.index for rows in chosen), frame.index[frame["status"] != "done"])
    return frame.loc[sorted(wanted)]


def embedded(data: Any) -> str:
    """JSON that may stand inside a script element: no text of the table can end it, and NaN becomes null."""
    text = json.dumps(_finite(data), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    """The value with plain Python numbers; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _method(method: str, methods: Sequence[str]) -> dict[str, Any]:
    drawn, place = look(method, methods), methods.index(method)
    return {
        "name": method,
        "color": COLORS.index(drawn.color),
        "symbol": SYMBOLS[drawn.marker],
        "dash": DASHES[place % len(DASHES)],
    }


TROUBLE = ("status", "error")
"""Columns that are shown where a run is not done."""
DIRECTIONS = {name: metric.higher_is_better for name, metric in (METRICS | BESIDE).items()}
"""Of the columns that have a best value, whether it is the largest."""
COLUMN_ORDER = [
    *(column.name for column in ALL_COLUMNS if column.in_table and column.shown),
    *(column.name for column in ALL_COLUMNS if column.in_table and not column.shown),
]


def _column(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    """A column of the run table: values as the table has them, and numbers as people write them."""
    column = next(each for each in ALL_COLUMNS if each.name == name)
    cells = [None if pd.isna(value) else value for value in rows[name].tolist()]
    shown = column.shown or (name in TROUBLE and bool((rows["status"] != "done").any()))
    found: dict[str, Any] = {"name": name, "meaning": column.meaning, "kind": column.kind, "shown": shown, "values": cells}
    if column.kind == "number":
        found["texts"] = ["" if value is None else format_number(float(value)) for value in cells]
    if name in DIRECTIONS:
        found["higher"] = DIRECTIONS[name]
    return found


def _metric(analysis: Analysis, name: str, places: dict[Any, int]) -> dict[str, Any]:
    """One metric's points, means, laws, limits, and its quality against the cost of sampling."""
    metric, rows = analysis.metric(name), analysis.rows(name)
    best = set(analysis.best_runs(name)["run_id"])
    row_of = {str(rows.at[index, "run_id"]): places[index] for index in rows.index}
    return {
        "label": metric.label,
        "higher": metric.higher_is_better,
        "share": metric.share,
        "log": uses_log_scale(metric, rows[name]),
        "setting": setting_of(METRICS[name], rows),
        "points": [{"row": row_of[str(run_id)], "best": run_id in best} for run_id in rows["run_id"]],
        "means": _means(analysis, name, row_of),
        "laws": _laws(analysis, name),
        "limits": [{"tokenizer": str(k), "value": float(v)} for k, v in autoencoder_limits(rows, name).items()],
        "front": _front(analysis, name, row_of),
        "speed": [
            {"row": row_of[str(run["run_id"])], **{column: float(run[column]) for column in SPEEDS}}
            for _, run in with_speed(analysis, name).iterrows()
        ],
    }


def _means(analysis: Analysis, name: str, row_of: dict[str, int]) -> list[dict[str, Any]]:
    """A point per method and budget: means over the seeds of its best size, of the metric and of every axis."""
    found = []
    for (method, budget), runs in analysis.best_runs(name).groupby(["method", "flops_budget"]):
        value, interval = float(runs[name].mean()), analysis.mean(name, float(budget), str(method))
        found.append(
            {
                "method": str(method),
                "value": value,
                "text": format_number(value),
                "interval": [interval.low, interval.high] if interval else None,
                "interval_text": f"{format_number(interval.low)} to {format_number(interval.high)}" if interval else "",
                "x": {axis: float(runs[axis].mean()) for axis in AXES},
                "rows": [row_of[str(run_id)] for run_id in runs["run_id"]],
            }
        )
    return found


def _laws(analysis: Analysis, name: str) -> list[dict[str, Any]]:
    """Per fitted method its law with the 95 % band, half a decade beyond the data."""
    found = []
    for method, fit in analysis.fits(name).items() if name in FITTED else ():
        if fit.law is None:
            continue
        top = float(fit.compute.max())
        compute = np.logspace(np.log10(fit.compute.min()), np.log10(top) + 0.5, CURVE_POINTS)
        low, _, high = shown_values(METRICS[name], fit.band(compute))
        values = shown_values(METRICS[name], fit.law(compute))
        points = [[float(each) for each in point] for point in zip(compute, values, low, high, strict=True)]
        found.append({"method": method, "top": top, "points": points})
    return found


def _front(analysis: Analysis, name: str, row_of: dict[str, int]) -> list[dict[str, Any]]:
    """Every sampler setting tried at the top budget: mean cost and validation metric of its seeds, and whether no other of the
    method's settings beats it in both."""
    rows = tried_rows(analysis, name)
    found: list[dict[str, Any]] = []
    for method in analysis.methods:
        groups = [group for _, group in rows[rows["method"] == method].groupby(SETTING, dropna=False)]
        cost = np.array([group["flops_per_sample"].mean() for group in groups])
        quality = np.array([group[name].mean() for group in groups])
        front = pareto(cost, quality, higher_is_better=METRICS[name].higher_is_better)
        found += [
            {
                "method": method,
                "setting": setting_text(group.iloc[0]),
                "cost": float(cost[place]),
                "cost_text": format_number(float(cost[place])),
                "value": float(quality[place]),
                "text": format_number(float(quality[place])),
                "front": place in front,
                "rows": [row_of[str(run_id)] for run_id in group["run_id"]],
            }
            for place, group in enumerate(groups)
        ]
    return found
