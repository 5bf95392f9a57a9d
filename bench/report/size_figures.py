"""Sizes at equal compute, and how the best ones grow."""

from __future__ import annotations

import textwrap
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.progress import format_number
from bench.report.style import (
    COLORS,
    MARKERS,
    Chart,
    add_legend,
    finish_axes,
    legend_room,
    look,
    loss_label,
    new_figure,
    panels,
    protocol_line,
    setting_of,
    shades,
    slug,
    uses_log_scale,
)

LEAST_SIZES = 3
"""At one budget, below which a curve over sizes says nothing: two points have no shape."""


def isoflop(analysis: Analysis, name: str) -> Chart:
    """Metric against parameters, a curve per budget, a panel per method; a star where a parabola has its minimum."""
    rows = analysis.rows(name)
    stars = sum(not m.missing for minima in analysis.minima(name).values() for m in minima)
    said = [f"Each curve holds the budget fixed and varies the size: means over seeds, {setting_of(METRICS[name], rows)}."]
    if rows.groupby(["method", "flops_budget", "num_params"]).size().max() > 1:
        said.append("Small markers: single runs.")
    said.append(
        "A star is the minimum of an accepted parabola, its bar the 95 % interval of the best size."
        if stars
        else "No parabola has an accepted minimum."
    )
    if METRICS[name].compares == "within a method":
        said.append("Each panel has its own scale: losses of two methods do not compare.")
    if stars and any(m.missing for minima in analysis.minima(name).values() for m in minima):
        said.append("Above a panel without a star: why there is none.")
    return Chart(
        name=slug(f"isoflop-{name}"),
        title=f"IsoFLOP: {METRICS[name].label} against size at equal compute",
        caption=" ".join(said),
        draw=partial(_draw_isoflop, analysis, name),
        missing=_few_sizes(rows),
    )


def _few_sizes(rows: pd.DataFrame) -> str:
    most = int(rows.groupby(["method", "flops_budget"])["num_params"].nunique().max())
    text = "size" if most == 1 else "sizes"
    return f"{most} {text} at a budget have no shape; {LEAST_SIZES} are needed" if most < LEAST_SIZES else ""


def _draw_isoflop(analysis: Analysis, name: str) -> Figure:
    metric, rows, methods, minima = analysis.metric(name), analysis.rows(name), analysis.methods, analysis.minima(name)
    alone = metric.compares == "within a method"
    figure, every = panels(methods, protocol_line(rows), height=3.3, one_scale=not alone)
    budgets = sorted(rows["flops_budget"].unique())
    for axes, method in zip(every, methods, strict=True):
        mine = rows[rows["method"] == method]
        axes.set_xscale("log")
        for index, (budget, shade) in enumerate(zip(budgets, shades(len(budgets)), strict=True)):
            runs = mine[mine["flops_budget"] == budget]
            cells = runs.groupby("num_params")[name].mean()
            marker, label = MARKERS[index % len(MARKERS)], format_number(budget)
            axes.plot(runs["num_params"], runs[name], ls="", marker=marker, ms=3, alpha=0.4, color=shade, gid=f"{label}: seeds")
            axes.plot(cells.index, cells, marker=marker, color=shade, label=label, ms=5, gid=f"{label}: mean")
        stars = [m for m in minima[method] if not m.missing]
        for star in stars:
            if star.interval:
                ends, height = [star.interval.low, star.interval.high], [metric.from_shortfall(star.value)] * 2
                axes.plot(ends, height, color=COLORS[1], lw=1.5, gid="intervals")
        axes.plot(
            [m.num_params for m in stars],
            [metric.from_shortfall(m.value) for m in stars],
            ls="",
            marker="*",
            ms=13,
            color=COLORS[1],
            gid="minima",
        )
        if not stars and minima[method]:
            text = textwrap.fill(f"no star: {minima[method][-1].missing}", 44)
            axes.annotate(text, (0.5, 0.99), xycoords="axes fraction", fontsize=6.5, color="#444444", ha="center", va="top")
        finish_axes(
            axes,
            x="trainable parameters, millions",
            y=loss_label(mine) if alone else metric.label if axes is every[0] else "",
            log_y=uses_log_scale(metric, rows[name]),
            x_scale=1e-6,
        )
    add_legend(every[-1], beside=True, title="FLOPs per run")
    return figure


def best_sizes(analysis: Analysis, name: str) -> Chart:
    """Parameters and images of the best size at each budget, and the minima of accepted parabolas."""
    rows = analysis.rows(name)
    said = "The best size that was run at each budget, and the images that it saw."
    if any(not m.missing for minima in analysis.minima(name).values() for m in minima):
        said += " Filled markers: minima of accepted parabolas, with their 95 % intervals."
    few = "one budget has no curve" if rows["flops_budget"].nunique() < 2 else ""
    return Chart(
        name=slug(f"best-sizes-{name}"),
        title=f"Best sizes by {METRICS[name].label}",
        caption=said,
        draw=partial(_draw_best_sizes, analysis, name),
        missing=_few_sizes(rows) or few,
    )


def _draw_best_sizes(analysis: Analysis, name: str) -> Figure:
    best, minima, methods = analysis.best_runs(name), analysis.minima(name), analysis.methods
    figure = new_figure(8.4 + legend_room(methods), 3.9, protocol_line(best))
    left, right = figure.subplots(1, 2)
    means = best.groupby(["method", "flops_budget"])[["num_params", "images_seen"]].mean()
    for method in [m for m in methods if m in means.index]:
        drawn, mine = look(method, methods), means.loc[method]
        for axes, column in ((left, "num_params"), (right, "images_seen")):
            axes.plot(
                mine.index,
                mine[column],
                color=drawn.color,
                ls=drawn.line,
                marker=drawn.marker,
                mfc="none",
                label=method,
                gid=f"{method}: best run",
            )
        found = [m for m in minima[method] if not m.missing]
        budgets, places = [m.budget for m in found], [m.num_params for m in found]
        left.plot(budgets, places, color=drawn.color, ls="", marker=drawn.marker, gid=f"{method}: minima")
        for each in found:
            if each.interval:
                ends = [each.interval.low, each.interval.high]
                left.plot([each.budget] * 2, ends, color=drawn.color, lw=1.5, alpha=0.5, gid=f"{method}: intervals")
    labels = {"num_params": "best size: trainable parameters", "images_seen": "images seen at the best size"}
    for axes, (column, text) in zip((left, right), labels.items(), strict=True):
        axes.set_xscale("log")
        narrow = best[column].max() < 5 * best[column].min()
        finish_axes(axes, x="training FLOPs per run", y=text, log_y=not narrow)
    add_legend(right)
    return figure
