"""What inference compute buys: the fronts of all methods, with one sample and with the best of n."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.fronts import MEASURED, Front, fronts
from bench.analysis.metrics import METRICS, judge_text
from bench.progress import format_number
from bench.report.style import Chart, finish_axes, look, new_figure, protocol_line
from bench.results.strategies import CLIP, NO_CHOICE, VERIFIER

WHO = {VERIFIER: "the exact verifier", CLIP: "the CLIP score"}
COSTS = {
    VERIFIER: "of all samples, decoding excluded",
    CLIP: "of all samples; of best of n also decoding and the CLIP",
}


def quality_against_inference(table: pd.DataFrame, budget: float, keeper: str) -> Chart:
    """FID and prompt accuracy on test captions against FLOPs per image that is kept, of the strategies that validation captions
    chose after one training budget: a line per method, and dashed where the best of n by a keeper is allowed too.

    `table` is one of strategies, as `bench.analysis.fronts` reads it.
    """
    mine = table[table["flops_budget"] == budget]
    tested = mine[mine["split"] == "test"]
    several = len(tested) and tested.groupby("method")["seed"].nunique().max() > 1
    return Chart(
        name=f"quality-against-inference-flops-{keeper}-{format_number(budget)}",
        title="Quality against inference compute",
        caption=f"After {format_number(budget)} training FLOPs; sizes, steps, guidance and temperature that no other strategy of "
        "the method beats on validation captions, drawn on test captions and labeled by steps. Hollow and dashed: also the best "
        f"of n samples by {WHO[keeper]}, labeled by n. " + ("Bars are 95 % t intervals over seeds." if several else "One seed."),
        draw=partial(_draw, mine, keeper),
        missing="" if len(tested) else "no strategy was measured on test captions",
    )


def _draw(table: pd.DataFrame, keeper: str) -> Figure:
    figure = new_figure(12.6, 4.6, protocol_line(table[table["split"] == "test"]))
    every = list(figure.subplots(1, len(MEASURED)))
    for axes, name in zip(every, MEASURED, strict=True):
        axes.set_xscale("log")
        alone, best = fronts(table, name), fronts(table, name, keeper)
        methods = [front.method for front in alone]
        for front in best:
            _line(axes, front, methods, chooses=True)
        for front in alone:
            _line(axes, front, methods, chooses=False)
        metric = METRICS[name]
        column = {"fid": "fid_network", "prompt_accuracy": "prompt_judge"}[name]
        judges = " and ".join(sorted({judge_text(str(judge)) for judge in table[column].dropna()}))
        finish_axes(
            axes,
            x=f"FLOPs per kept image, guidance included,\n{COSTS[keeper]}",
            y=f"{metric.label}, {judges}",
            log_y=not metric.higher_is_better,
        )
    every[-1].plot([], [], ls="--", color="#777777", label=f"best of n by {WHO[keeper]}")
    every[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _line(axes: Axes, front: Front, methods: list[str], *, chooses: bool) -> None:
    """One front; of that with a choice its points with a choice are marked."""
    drawn, metric = look(front.method, methods), front.metric
    points = [point for point in front.points if len(point.test)]
    x, y = np.array([point.cost for point in points]), np.array([point.value(metric) for point in points])
    marked = (
        np.array([point.strategy["keeper"] != NO_CHOICE for point in points], dtype=bool)
        if chooses
        else np.ones(len(points), bool)
    )
    style: dict[str, Any] = {"color": drawn.color, "lw": 1.2}
    name = f"{front.method}: best of n" if chooses else front.method
    axes.plot(x, y, ls="--" if chooses else "-", alpha=0.7 if chooses else 1.0, gid=f"{name}: line", **style)
    fill: dict[str, Any] = {"mfc": "none"} if chooses else {}
    label = None if chooses else front.method
    axes.plot(
        x[marked], y[marked], ls="", ms=5, marker=drawn.marker, color=drawn.color, label=label, gid=f"{name}: points", **fill
    )
    for point, shown in zip(points, marked, strict=True):
        interval = point.interval(metric)
        if shown and interval is not None:
            axes.plot([point.cost] * 2, [interval.low, interval.high], color=drawn.color, lw=0.9, gid=f"{name}: interval")
        if shown and point.label:
            below = -9 if chooses else 5
            axes.annotate(
                point.label, (point.cost, point.value(metric)), (0, below), textcoords="offset points",
                ha="center", fontsize=6, color=drawn.color,
            )  # fmt: skip
