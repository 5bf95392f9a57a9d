"""Quality against training compute, and sizes at equal compute."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import FITTED, Metric, best_per_budget
from bench.analysis.scaling import ScalingFit
from bench.report.style import (
    COLORS,
    MARKERS,
    TRAINING_AXIS,
    Look,
    add_legend,
    caption,
    finish_axes,
    legend_room,
    look,
    new_figure,
    number,
    shown_values,
    uses_log_scale,
)


def quality_against_training(analysis: Analysis, name: str) -> Figure:
    """Metric against training FLOPs: points are runs, markers the best size per budget.

    Where a fit exists: its curve and 95 % band, dashed beyond the data, and the residuals below. Elsewhere a line through the
    means; bars are one standard error of the metric at one training seed. Dotted: the autoencoder's own limit.
    """
    metric, rows, methods = analysis.metric(name), analysis.rows(name), analysis.methods
    fits = {m: f for m, f in analysis.fits(name).items() if f.law is not None} if name in FITTED else {}
    figure = new_figure(6.4 + legend_room(methods), 6.2 if fits else 4.6, caption(rows))
    if fits:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    else:
        axes, below = figure.add_subplot(), None
    best = best_per_budget(rows, metric)
    for method in methods:
        drawn, runs, line = look(method, methods), rows[rows["method"] == method], best[best["method"] == method]
        axes.plot(runs["flops_budget"], runs[name], ls="", marker=drawn.marker, color=drawn.color, ms=4, alpha=0.35)
        fit = fits.get(method)
        axes.errorbar(
            line["flops_budget"],
            line["value"],
            yerr=line["error"],
            label=method,
            capsize=2,
            ms=6,
            lw=1.6,
            color=drawn.color,
            marker=drawn.marker,
            ls="" if fit else drawn.line,
        )
        if fit and below is not None:
            _fitted(axes, below, fit, metric, drawn)
    _limits(axes, rows, name)
    axes.set_xscale("log")
    (below or axes).set_xlabel(TRAINING_AXIS)
    finish_axes(axes, label=metric.label, log=uses_log_scale(metric, rows))
    add_legend(axes)
    if below is not None:
        below.axhline(0, color="#777777", lw=0.8)
        finish_axes(below, label="log observed\nover fitted")
    return figure


def _fitted(axes: Axes, below: Axes, fit: ScalingFit, metric: Metric, drawn: Look) -> None:
    """Curve, band and residuals of one method."""
    assert fit.law is not None
    low, high = np.log10(fit.compute.min()), np.log10(fit.compute.max())
    for start, end, line in ((low, high, drawn.line), (high, high + 0.5, ":")):
        compute = np.logspace(start, end, 60)
        axes.plot(compute, shown_values(metric, fit.law(compute)), color=drawn.color, ls=line, lw=1.4)
        band = fit.band(compute)
        axes.fill_between(
            compute, shown_values(metric, band[0]), shown_values(metric, band[2]), color=drawn.color, alpha=0.15, lw=0
        )
    below.plot(fit.compute, fit.residuals, ls="", marker=drawn.marker, color=drawn.color, ms=3)


def _limits(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    """Dotted lines of what the autoencoders themselves reach."""
    limits = {"fid": "fid_autoencoder", "prompt_accuracy": "prompt_accuracy_ceiling"}
    if name not in limits:
        return
    limit = rows.dropna(subset=[limits[name]]).groupby("tokenizer")[limits[name]].first()
    for index, (tokenizer, value) in enumerate(limit.items()):
        axes.axhline(value, color="#777777", ls=":", lw=0.9)
        kind = str(tokenizer).split("@")[0].removeprefix("autoencoder-").upper()
        place, align = (0.02, "left") if index % 2 == 0 else (0.98, "right")
        text = f"{kind} autoencoder {value:.3g}"
        axes.annotate(text, (place, value), xycoords=("axes fraction", "data"), fontsize=7, ha=align, va="top")


def isoflop(analysis: Analysis, name: str) -> Figure:
    """Metric against parameters, a curve per budget, a panel per method; a star where a parabola has its minimum."""
    metric, rows, methods = analysis.metric(name), analysis.rows(name), analysis.methods
    minima = analysis.minima(name)
    columns = min(len(methods), 5)
    lines = -(-len(methods) // columns)
    figure = new_figure(3.1 * columns, 3.2 * lines + 0.4, caption(rows))
    panels = np.atleast_1d(figure.subplots(lines, columns, sharey=True, squeeze=False)).ravel()
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(panels, methods, strict=False):
        mine = rows[rows["method"] == method]
        budgets = sorted(mine["flops_budget"].unique())
        for index, budget in enumerate(budgets):
            cells = mine[mine["flops_budget"] == budget].groupby("num_params")[name].mean()
            shade = str(0.75 - 0.75 * index / max(1, len(budgets) - 1))
            named = index in np.linspace(0, len(budgets) - 1, min(len(budgets), 8)).round()
            label = f"{budget:.1e}" if named else None
            axes.plot(cells.index, cells.values, marker=MARKERS[index % 8], color=shade, label=label, ms=5)
        stars = [m for m in minima[method] if not m.missing]
        axes.plot(
            [m.num_params for m in stars],
            shown_values(metric, np.array([m.value for m in stars])),
            ls="",
            marker="*",
            ms=13,
            color=COLORS[1],
        )
        reason = "" if stars or not minima[method] else textwrap.fill(f"no star: {minima[method][-1].missing}", 44)
        axes.set_title(method, fontsize=9, pad=22)
        axes.annotate(reason, (0.5, 1.01), xycoords="axes fraction", fontsize=6.5, color="#555555", ha="center", va="bottom")
        axes.set_xscale("log")
        axes.set_xlabel("trainable parameters, millions")
        finish_axes(axes, label=metric.label if axes is panels[0] else "", log=uses_log_scale(metric, rows))
        sizes = sorted(mine["num_params"].unique())
        if len(sizes) <= 6:
            axes.set_xticks(sizes, [f"{size / 1e6:.3g}" for size in sizes])
        else:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value / 1e6)))
    panels[0].legend(title="FLOPs per run", fontsize=7, title_fontsize=7, frameon=False)
    return figure


def best_sizes(analysis: Analysis, name: str) -> Figure:
    """Parameters and images of the best size at each budget; filled where a parabola confirms it, hollow for the best run."""
    metric, rows, methods = analysis.metric(name), analysis.rows(name), analysis.methods
    figure = new_figure(8.4 + legend_room(methods), 3.9, caption(rows))
    left, right = figure.subplots(1, 2)
    best, minima = best_per_budget(rows, metric), analysis.minima(name)
    for method in methods:
        drawn, mine = look(method, methods), best[best["method"] == method]
        confirmed = {m.budget: m.num_params for m in minima[method] if not m.missing}
        for axes, column in ((left, "num_params"), (right, "images_seen")):
            axes.plot(
                mine["flops_budget"],
                mine[column],
                color=drawn.color,
                ls=drawn.line,
                marker=drawn.marker,
                mfc="none",
                label=method,
            )
        left.plot(list(confirmed), list(confirmed.values()), color=drawn.color, ls="", marker=drawn.marker)
    for axes, text in ((left, "best size: trainable parameters"), (right, "images seen at the best size")):
        axes.set_xscale("log")
        axes.set_xlabel("training FLOPs per run")
        finish_axes(axes, label=text, log=True)
    if best["num_params"].max() < 5 * best["num_params"].min():
        left.set_yscale("linear")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    add_legend(right)
    return figure
