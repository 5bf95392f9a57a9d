"""How methods were tuned: each sampler option with the others held, and learning rates."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS, methods_of
from bench.analysis.tuning import SETTING, rate_curves, setting_text, settings_tried, tried_rows
from bench.report.style import (
    LINES,
    MARKERS,
    Chart,
    add_legend,
    few_ticks,
    finish_axes,
    heading,
    legend_room,
    look,
    new_figure,
    panels,
    protocol_line,
    shades,
    slug,
    uses_log_scale,
)

LEAST_VALUES = 3
"""Of an option, below which a curve says nothing."""
AXES = {"guidance": "guidance scale", "temperature": "sampling temperature", "sampler_steps": "sampler steps"}

Curves = dict[str, dict[str, pd.DataFrame]]
"""Per method and text of the other options: the validation rows of one curve."""


def curves_along(rows: pd.DataFrame, axis: str) -> Curves:
    """Rows that differ in one option alone, for every combination of the others that was tried at three values or more."""
    others = [name for name in SETTING if name != axis]
    found: Curves = {}
    for method in methods_of(rows):
        mine = rows[(rows["method"] == method) & rows[axis].notna()]
        for _, curve in mine.groupby(others, dropna=False):
            if curve[axis].nunique() >= LEAST_VALUES:
                found.setdefault(method, {})[setting_text(curve.iloc[0][others])] = curve
    return found


def sampler_curves(analysis: Analysis, name: str, axis: str) -> Chart:
    """Validation metric against one option of the sampler, a panel per method, a line per combination of the other options."""
    rows = tried_rows(analysis, name)
    curves = curves_along(rows, axis)
    said = "Top budget, best size, validation conditions. Each line holds the other options fixed"
    said += ": mean over seeds, and each seed (pale)." if rows["seed"].nunique() > 1 else "."
    absent = [m for m in analysis.methods if m not in curves]
    if curves and absent:
        said += f" Not drawn, since they were not tried at {LEAST_VALUES} values: {', '.join(absent)}."
    return Chart(
        name=slug(f"{name}-against-{axis}"),
        title=heading(f"{METRICS[name].label} against {AXES[axis]}"),
        caption=said,
        draw=partial(_draw_sampler, analysis, name, axis),
        missing="" if curves else f"no method was tried at {LEAST_VALUES} values of it with all else equal",
    )


def _draw_sampler(analysis: Analysis, name: str, axis: str) -> Figure:
    metric, rows = analysis.metric(name), tried_rows(analysis, name)
    curves = curves_along(rows, axis)
    figure, every = panels(list(curves), protocol_line(rows))
    combinations = sorted({text for lines in curves.values() for text in lines})
    colors = shades(len(combinations))
    for axes, lines in zip(every, curves.values(), strict=True):
        for text, curve in lines.items():
            index = combinations.index(text)
            color, marker = colors[index], MARKERS[index % len(MARKERS)]
            mean = curve.groupby(axis)[name].mean()
            axes.plot(curve[axis], curve[name], ls="", marker=marker, ms=3, alpha=0.4, color=color, gid=f"{text}: seeds")
            axes.plot(
                mean.index, mean, color=color, marker=marker, ms=5, ls=LINES[index % len(LINES)], label=text, gid=f"{text}: mean"
            )
        finish_axes(
            axes,
            x=AXES[axis],
            y=f"{metric.label},\nvalidation conditions" if axes is every[0] else "",
            log_y=uses_log_scale(metric, rows[name]),
        )
        few_ticks(axes.xaxis, [value for curve in lines.values() for value in curve[axis]])
        axes.legend(frameon=False, fontsize=7)
    return figure


def learning_rate_curves(search: pd.DataFrame, name: str) -> Chart:
    """Validation metric against the learning rate in the search that chose the sweep's rates; a ring marks each method's best."""
    curves = rate_curves(search, name)
    counts = settings_tried(search)
    same = len(set(counts.values())) == 1
    tried = (
        f"the {next(iter(counts.values()))} sampler settings that every method was tried at" if same else "each method's settings"
    )
    several = any(len(curve.runs) > len(curve.rates) for curve in curves)
    return Chart(
        name=slug(f"learning-rates-{name}"),
        title=f"Validation {METRICS[name].label} against the learning rate",
        caption=f"One size and budget, validation conditions, at the best of {tried}"
        + (": mean over seeds, and each seed (pale). " if several else ". ")
        + "A ring marks each method's best rate.",
        draw=partial(_draw_rates, search, name),
        missing="" if any(len(c.rates) >= LEAST_VALUES for c in curves) else f"no method was tried at {LEAST_VALUES} rates",
    )


def _draw_rates(search: pd.DataFrame, name: str) -> Figure:
    metric, curves = METRICS[name], rate_curves(search, name)
    methods = [curve.method for curve in curves]
    figure = new_figure(6.6 + legend_room(methods), 4.4, protocol_line(search))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for curve in curves:
        drawn = look(curve.method, methods)
        style: dict[str, Any] = {"color": drawn.color, "marker": drawn.marker}
        runs = curve.runs
        axes.plot(runs["learning_rate"], runs["value"], ls="", ms=3, alpha=0.4, gid=f"{curve.method}: seeds", **style)
        axes.plot(curve.rates, curve.values, ls=drawn.line, ms=5, label=curve.method, gid=f"{curve.method}: mean", **style)
        place = curve.values[list(curve.rates).index(curve.best)]
        axes.plot(
            [curve.best], [place], ls="", marker="o", ms=13, mfc="none", mew=1.4, color=drawn.color, gid=f"{curve.method}: best"
        )
    values = pd.concat([curve.runs["value"] for curve in curves])
    finish_axes(axes, x="peak learning rate", y=f"{metric.label},\nvalidation conditions", log_y=uses_log_scale(metric, values))
    few_ticks(axes.xaxis, [rate for curve in curves for rate in curve.rates])
    add_legend(axes)
    return figure
