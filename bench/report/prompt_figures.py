"""Prompt following: seen against held-out pairs, and by attribute."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.report.style import (
    GREY,
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

ACCURACY = "prompt_accuracy"
ATTRIBUTES = ("count", "shape", "color", "size", "relation")
INDEPENDENT = "Product: what the joint accuracy would be if the errors of an image's attributes were independent."
LEVELS = {
    "prompt_accuracy_heldout": "all held-out captions",
    "prompt_accuracy_heldout_one": "one object of a held-out pair",
    "prompt_accuracy_heldout_both": "both objects of held-out pairs",
}


def seen_against_held_out(analysis: Analysis) -> Chart:
    """Prompt accuracy on unseen captions of seen pairs against held-out pairs; on the diagonal nothing is lost."""
    rows = analysis.rows(ACCURACY)
    return Chart(
        name="seen-against-held-out",
        title="Known against new combinations",
        caption=f"A marker per run, every size, budget and seed, {setting_of(METRICS[ACCURACY], rows)}. Below the "
        "diagonal a method follows known pairs of shape and color better than new ones.",
        draw=partial(_draw_held_out, analysis),
        missing="" if measured_columns(rows, LEVELS) else "no run was sampled on held-out captions",
    )


def _draw_held_out(analysis: Analysis) -> Figure:
    rows, methods = analysis.rows(ACCURACY), analysis.methods
    levels = measured_columns(rows, LEVELS)
    figure = new_figure(0.6 + 3.5 * len(levels) + legend_room(methods), 4.2, protocol_line(rows))
    every = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    for axes, (column, text) in zip(every, levels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        for method in methods:
            drawn, mine = look(method, methods), rows[rows["method"] == method]
            style: dict[str, Any] = {
                "marker": drawn.marker,
                "color": drawn.color,
                "alpha": 0.8,
                "label": method,
                "gid": f"{method}: runs",
            }
            axes.plot(mine[ACCURACY], mine[column], ls="", **style)
        axes.set_title(text, fontsize=9)
        label = "exact prompt accuracy, held-out pairs" if axes is every[0] else ""
        finish_axes(axes, x="exact prompt accuracy, seen pairs", y=label)
    add_legend(every[-1])
    return figure


def _two_objects(rows: pd.DataFrame) -> bool:
    """Whether every test caption names two objects, as on the shapes: elsewhere independent errors have no one product."""
    return not rows["prompt_accuracy_uniform"].notna().any()


def attributes(analysis: Analysis) -> Chart:
    """Each attribute's share at the top budget, their product (what independent errors would give), and the joint accuracy."""
    rows = at_top_budget(analysis.best_runs(ACCURACY))
    columns = {f"{ACCURACY}_{name}": name for name in ATTRIBUTES}
    several = rows.groupby("method").size().max() > 1 if len(rows) else False
    return Chart(
        name="attributes",
        title="Prompt following by attribute",
        caption=f"Top budget, best size, {setting_of(METRICS[ACCURACY], rows)}. "
        + ("Large markers: mean over seeds; small: single runs. " if several else "")
        + (INDEPENDENT if _two_objects(rows) else ""),
        draw=partial(_draw_attributes, analysis),
        missing="" if set(measured_columns(rows, columns)) == set(columns) else "no run was judged by attribute",
    )


def _draw_attributes(analysis: Analysis) -> Figure:
    rows, methods = at_top_budget(analysis.best_runs(ACCURACY)).copy(), analysis.methods
    names = [f"{ACCURACY}_{name}" for name in ATTRIBUTES]
    count, shape, color, size, relation = (rows[name] for name in names)
    columns, labels = [*names, ACCURACY], [*ATTRIBUTES, "joint"]
    if _two_objects(rows):
        rows["product"] = count * (shape * color * size) ** 2 * relation  # two objects carry shape, color and size each
        columns, labels = [*names, "product", ACCURACY], [*ATTRIBUTES, "product", "joint"]
    figure = new_figure(8.0 + legend_room([*methods, *methods]), 4.2, protocol_line(rows))
    axes = figure.add_subplot()
    shifts = (np.arange(len(methods)) - (len(methods) - 1) / 2) * 0.8 / len(methods)
    for method, shift in zip(methods, shifts, strict=True):
        drawn, mine = look(method, methods), rows[rows["method"] == method]
        style: dict[str, Any] = {"marker": drawn.marker, "color": drawn.color, "ls": ""}
        places = np.arange(len(columns)) + shift
        for _, run in mine.iterrows():
            axes.plot(places, run[columns].astype(float), ms=3, alpha=0.45, gid=f"{method}: seeds", **style)
        axes.plot(places, mine[columns].mean(), ms=6.5, label=method, gid=f"{method}: mean", **style)
    finish_axes(axes, y="share of images (count, relation, joint)\nor of named objects")
    axes.set_xticks(range(len(columns)), labels)
    axes.set_ylim(top=1.02)
    for edge in np.arange(len(columns) - 1) + 0.5:
        axes.axvline(edge, color="#dddddd", lw=0.6)
    axes.grid(visible=False, axis="x")
    add_legend(axes, beside=True)
    return figure
