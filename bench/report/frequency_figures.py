"""Head and tail: accuracy against how frequent a kind of object is in training."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.report.style import (
    TRAINING_AXIS,
    Chart,
    add_legend,
    at_top_budget,
    finish_axes,
    legend_room,
    look,
    measured_columns,
    new_figure,
    protocol_line,
    setting_of,
)
from bench.results.columns import DECILES

ACCURACY = "prompt_accuracy"
HEAD, TAIL = DECILES[0], DECILES[-1]


def accuracy_by_frequency(analysis: Analysis) -> Chart:
    """Share of objects drawn right, by tenth of the kinds at the top budget; the first and the last tenth against compute."""
    rows = analysis.best_runs(ACCURACY)
    several = rows["flops_budget"].nunique() > 1
    return Chart(
        name="accuracy-by-frequency",
        title="Frequent and rare kinds",
        caption="Objects of captions in which all kinds are equally likely; top budget, best size, "
        f"{setting_of(METRICS[ACCURACY], rows)}. Tenth 1 holds the kinds that training shows most often, tenth 10 the rarest. "
        + ("Right: the first tenth (filled markers) and the last (hollow) against training FLOPs." if several else ""),
        draw=partial(_draw, analysis),
        missing="" if measured_columns(rows, dict.fromkeys(DECILES, "")) else "no world with a long tail",
    )


def _draw(analysis: Analysis) -> Figure:
    rows, methods = analysis.best_runs(ACCURACY), analysis.methods
    several = rows["flops_budget"].nunique() > 1
    figure = new_figure((9.0 if several else 5.0) + legend_room(methods), 4.0, protocol_line(rows))
    axes = figure.subplots(1, 2 if several else 1, sharey=True, squeeze=False)[0]
    top = at_top_budget(rows)
    for method in methods:
        _draw_deciles(axes[0], top[top["method"] == method], method, methods)
        if several:
            _draw_ends(axes[1], rows[rows["method"] == method], method, methods)
    finish_axes(axes[0], x="tenth of the kinds, by frequency in training", y="share of objects with kind, color and size")
    axes[0].set_xticks(range(1, len(DECILES) + 1))
    axes[0].set_ylim(-0.02, 1.02)
    if several:
        axes[1].set_xscale("log")
        finish_axes(axes[1], x=TRAINING_AXIS)
    add_legend(axes[-1] if len(methods) > 5 else axes[0])
    return figure


def _style(method: str, methods: list[str]) -> dict[str, Any]:
    drawn = look(method, methods)
    return {"color": drawn.color, "marker": drawn.marker, "ls": drawn.line}


def _draw_deciles(axes: Axes, runs: pd.DataFrame, method: str, methods: list[str]) -> None:
    """Mean over seeds of each tenth."""
    if len(runs):
        values = runs[list(DECILES)].mean().to_numpy(float)
        axes.plot(np.arange(1, len(DECILES) + 1), values, label=method, gid=f"{method}: tenths", **_style(method, methods))


def _draw_ends(axes: Axes, runs: pd.DataFrame, method: str, methods: list[str]) -> None:
    """Mean over seeds of the first and the last tenth at each budget."""
    for column, fill in ((HEAD, "full"), (TAIL, "none")):
        means = runs.groupby("flops_budget")[column].mean()
        axes.plot(means.index, means, fillstyle=fill, gid=f"{method}: {column}", **_style(method, methods))
