"""Quality against the cost of sampling, the sampler's options, and where its FLOPs go."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.analysis.comparison import Analysis
from bench.analysis.laws import Array
from bench.report.style import (
    TRAINING_AXIS,
    add_legend,
    at_top_budget,
    caption,
    finish_axes,
    legend_room,
    look,
    measured_columns,
    new_figure,
    number,
    uses_log_scale,
)

COSTS = {
    "flops_per_sample": "FLOPs per sampled image, guidance included",
    "latency_ms_b1_p50": "latency at batch 1, median, ms",
    "images_per_s": "throughput at the best batch, images/s",
}
PARTS = {
    "flops_per_sample_backbone": "backbone",
    "flops_per_sample_head": "head and token embedding",
    "flops_per_sample_text": "text",
    "flops_per_decode": "decoder",
}
SAMPLER_AXES = {
    "guidance": "guidance scale",
    "temperature": "sampling temperature",
    "sampler_steps": "sampler steps",
}


def quality_against_cost(analysis: Analysis, name: str) -> Figure:
    """Metric of the top-budget runs against the costs of sampling at the setting chosen for accuracy; lines join the methods that
    no other beats on both axes."""
    metric, methods = analysis.metric(name), analysis.methods
    runs = analysis.rows("prompt_accuracy")
    top = at_top_budget(runs)
    figure = new_figure(11.5 + legend_room(methods), 3.8, caption(top))
    costs = measured_columns(top, COSTS)
    for axes, (column, text) in zip(figure.subplots(1, len(costs), sharey=True, squeeze=False)[0], costs.items(), strict=True):
        for method in methods:
            drawn, mine = look(method, methods), top[top["method"] == method]
            axes.errorbar(
                mine[column],
                mine[name],
                yerr=mine[metric.error],
                ls="",
                marker=drawn.marker,
                color=drawn.color,
                label=method,
                capsize=2,
            )
        points = top.groupby("method")[[column, name]].mean().dropna()
        front = pareto(points[column].to_numpy(), points[name].to_numpy(), column == "images_per_s", metric.higher_is_better)
        axes.plot(points[column].to_numpy()[front], points[name].to_numpy()[front], color="#999999", lw=0.9, zorder=0)
        axes.set_xscale("log")
        axes.set_xlabel(text)
        finish_axes(axes, label="", log=uses_log_scale(metric, top))
    figure.axes[0].set_ylabel(metric.label)
    add_legend(figure.axes[-1])
    return figure


def pareto(cost: Array, quality: Array, more_is_better: bool, higher_is_better: bool) -> list[int]:
    """Indices, by ascending cost, of the points (n,) that no other beats on both axes."""
    x = -cost if more_is_better else cost
    y = -quality if higher_is_better else quality
    front = [
        i
        for i in range(len(x))
        if not any((x[j] <= x[i]) & (y[j] <= y[i]) & ((x[j] < x[i]) | (y[j] < y[i])) for j in range(len(x)))
    ]
    return sorted(front, key=lambda i: float(cost[i]))


def sampler_curves(analysis: Analysis, name: str, axis: str) -> Figure:
    """Validation metric of the top-budget runs against one option of the sampler, at the best of the other options tried."""
    metric, frame = analysis.metric(name), analysis.frame
    rows = frame[(frame["status"] == "done") & (frame["split"] == "validation") & frame[name].notna()]
    rows = at_top_budget(rows)
    figure = new_figure(6.0 + legend_room(analysis.methods), 4.2, caption(rows))
    axes = figure.add_subplot()
    keys = ["method", "width", "depth", "seed", axis]
    grouped = rows.dropna(subset=[axis]).groupby(keys)[name]
    curves = (grouped.max() if metric.higher_is_better else grouped.min()).reset_index().groupby(["method", axis])[name].mean()
    for method in [m for m in analysis.methods if m in curves.index.get_level_values(0)]:
        drawn, line = look(method, analysis.methods), curves[method]
        axes.plot(line.index, line.values, color=drawn.color, marker=drawn.marker, ls=drawn.line, label=method)
    axes.set_xlabel(SAMPLER_AXES[axis])
    finish_axes(axes, label=f"{metric.label},\nvalidation conditions", log=uses_log_scale(metric, rows))
    add_legend(axes)
    return figure


def flops_by_part(analysis: Analysis) -> Figure:
    """FLOPs of one sampled image at the top budget and the setting chosen for accuracy, stacked by part."""
    runs, methods = analysis.best_runs("prompt_accuracy"), analysis.methods
    top = at_top_budget(runs)
    means = top.groupby("method")[list(PARTS)].mean().reindex(methods)
    figure = new_figure(7.0, 1.6 + 0.45 * len(methods), caption(top))
    axes = figure.add_subplot()
    left = np.zeros(len(methods))
    for index, (column, text) in enumerate(PARTS.items()):
        shade, hatch = str(0.15 + 0.22 * index), ("", "//", "..", "xx")[index]
        axes.barh(methods, means[column], left=left, color=shade, hatch=hatch, edgecolor="white", lw=0.4, label=text)
        left += means[column].fillna(0).to_numpy()
    for place, total in enumerate(left):
        axes.annotate(f" {total:.2e}", (total, place), va="center", fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("FLOPs per image, guidance included")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    finish_axes(axes)
    add_legend(axes, beside=True)
    return figure


def averaging(analysis: Analysis) -> Figure:
    """FID of raw over averaged weights of each run, at the setting chosen for accuracy; above 1 averaging helps."""
    methods = analysis.methods
    averaged, raw = analysis.rows("prompt_accuracy"), analysis.rows("prompt_accuracy", ema=False)
    both = averaged.merge(raw[["run_id", "fid"]], on="run_id", suffixes=("", "_raw"))
    figure = new_figure(6.0 + legend_room(methods), 4.0, caption(averaged))
    axes = figure.add_subplot()
    axes.axhline(1, color="#777777", lw=0.8)
    for method in methods:
        drawn, mine = look(method, methods), both[both["method"] == method]
        axes.plot(
            mine["flops_budget"], mine["fid_raw"] / mine["fid"], ls="", marker=drawn.marker, color=drawn.color, label=method
        )
    axes.set_xscale("log")
    axes.set_xlabel(TRAINING_AXIS)
    finish_axes(axes, label="FID of raw over averaged weights")
    add_legend(axes)
    return figure
