"""Quality against the cost of sampling, where its FLOPs go, and what averaging the weights gains."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.fronts import pareto
from bench.analysis.metrics import METRICS
from bench.analysis.standing import SPEEDS, with_speed
from bench.analysis.tuning import SETTING, setting_text, tried_rows
from bench.progress import format_number
from bench.report.style import (
    COLORS,
    GREY,
    TRAINING_AXIS,
    Chart,
    add_legend,
    at_top_budget,
    finish_axes,
    heading,
    legend_room,
    look,
    measured_columns,
    name_rows,
    new_figure,
    protocol_line,
    setting_of,
    slug,
    uses_log_scale,
)

PARTS = {
    "flops_per_sample_backbone": "backbone",
    "flops_per_sample_head": "head and token embedding",
    "flops_per_sample_text": "condition",
    "flops_per_decode": "decoder",
}


def quality_against_flops(analysis: Analysis, name: str) -> Chart:
    """Validation metric against FLOPs per sample at every sampler setting; a line joins what no other setting beats."""
    rows = tried_rows(analysis, name)
    said = "Top budget, best size, validation conditions. Filled and joined: each method's settings that no other of its settings"
    said += " beats in both cost and quality"
    said += ", as means over seeds (small markers: their single runs)." if rows["seed"].nunique() > 1 else "."
    return Chart(
        name=slug(f"{name}-against-sampling-flops"),
        title=heading(f"{METRICS[name].label} against FLOPs per sample"),
        caption=said + " Hollow: the other settings that were tried.",
        draw=partial(_draw_flops, analysis, name),
        missing="" if len(rows) else "no finished run has validation rows with this metric",
    )


def _draw_flops(analysis: Analysis, name: str) -> Figure:
    metric, rows, methods = analysis.metric(name), tried_rows(analysis, name), analysis.methods
    figure = new_figure(6.6 + legend_room(methods), 4.6, protocol_line(rows))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for method in methods:
        drawn, mine = look(method, methods), rows[rows["method"] == method]
        if mine.empty:
            continue
        groups = [group for _, group in mine.groupby(SETTING, dropna=False)]
        cost = np.array([group["flops_per_sample"].mean() for group in groups])
        quality = np.array([group[name].mean() for group in groups])
        front = pareto(cost, quality, higher_is_better=metric.higher_is_better)
        seeds = pd.concat([groups[i] for i in front])
        style: dict[str, Any] = {"marker": drawn.marker, "color": drawn.color}
        axes.plot(cost, quality, ms=4.5, ls="", alpha=0.5, mfc="none", gid=f"{method}: settings", **style)
        axes.plot(seeds["flops_per_sample"], seeds[name], ms=3, ls="", alpha=0.45, gid=f"{method}: seeds", **style)
        axes.plot(cost[front], quality[front], ms=6.5, lw=1.2, ls=drawn.line, label=method, gid=f"{method}: front", **style)
    finish_axes(
        axes,
        x="FLOPs per sampled image, guidance included, decoder excluded",
        y=f"{metric.label},\nvalidation conditions",
        log_y=uses_log_scale(metric, rows[name]),
    )
    add_legend(axes)
    return figure


def quality_against_speed(analysis: Analysis, name: str) -> Chart:
    """Test metric against latency and throughput at the setting chosen for the metric, a marker per seed."""
    runs = at_top_budget(analysis.best_runs(name))
    found = with_speed(analysis, name) if len(runs) else runs
    said = f"Top budget, best size, a marker per training seed, {setting_of(METRICS[name], runs)}."
    lost = len(runs) - len(found)
    if lost:
        said += f" {lost} of {len(runs)} runs are left out: their speed was measured at a setting of another cost only."
    return Chart(
        name=slug(f"{name}-against-speed"),
        title=heading(f"{METRICS[name].label} against latency and throughput"),
        caption=said,
        draw=partial(_draw_speed, analysis, name),
        missing="" if found["method"].nunique() > 1 else "fewer than two methods have a speed measured at these settings",
    )


def _draw_speed(analysis: Analysis, name: str) -> Figure:
    metric, methods, runs = analysis.metric(name), analysis.methods, with_speed(analysis, name)
    figure = new_figure(9.0 + legend_room(methods), 4.0, protocol_line(runs))
    every = figure.subplots(1, len(SPEEDS), sharey=True)
    for axes, (column, text) in zip(every, SPEEDS.items(), strict=True):
        axes.set_xscale("log")
        for method in methods:
            drawn, mine = look(method, methods), runs[runs["method"] == method]
            if len(mine):
                axes.plot(
                    mine[column], mine[name], ls="", marker=drawn.marker, color=drawn.color, label=method, gid=f"{method}: seeds"
                )
        label = metric.label if axes is every[0] else ""
        finish_axes(axes, x=text, y=label, log_y=uses_log_scale(metric, runs[name]))
    add_legend(every[-1])
    return figure


def flops_by_part(analysis: Analysis) -> Chart:
    """FLOPs of one sampled image, stacked by part: a bar for each cost that the chosen settings of a method have."""
    runs = at_top_budget(analysis.best_runs("prompt_accuracy"))
    said = f"Top budget, best size, {setting_of(METRICS['prompt_accuracy'], runs)}."
    return Chart(
        name="sampling-flops-by-part",
        title="FLOPs of one image by part",
        caption=f"{said} Where the seeds chose settings of different costs, each has a bar.",
        draw=partial(_draw_parts, analysis),
        missing="" if measured_columns(runs, PARTS) else "no run has counted sampling FLOPs",
    )


def _draw_parts(analysis: Analysis) -> Figure:
    runs = at_top_budget(analysis.best_runs("prompt_accuracy")).dropna(subset=list(PARTS), how="all")
    bars: list[tuple[str, pd.Series]] = []
    for method in analysis.methods:
        mine = runs[runs["method"] == method]
        for _, cell in mine.groupby("flops_per_sample"):
            share = f" ({len(cell)} of {len(mine)} seeds)" if len(cell) < len(mine) else ""
            bars.append((f"{method}\n{_cost_text(cell.iloc[0])}{share}", cell.iloc[0][list(PARTS)].astype(float).fillna(0)))
    figure = new_figure(9.6, 1.0 + 0.46 * len(bars), protocol_line(runs))
    axes = figure.add_subplot()
    left = np.zeros(len(bars))
    for (column, text), shade, hatch in zip(
        PARTS.items(), (COLORS[0], COLORS[4], COLORS[3], COLORS[5]), ("", "//", "..", "xx"), strict=True
    ):
        widths = np.array([cell[column] for _, cell in bars])
        axes.barh(
            range(len(bars)), widths, left=left, color=shade, hatch=hatch, edgecolor="white", lw=0.4, label=text, gid=column
        )
        left += widths
    for place, total in enumerate(left):
        axes.annotate(f" {format_number(total)}", (total, place), va="center", fontsize=7)
    finish_axes(axes, x="FLOPs per image, guidance included")
    axes.margins(x=0.12)
    name_rows(axes, [text for text, _ in bars])
    axes.tick_params(axis="y", labelsize=8)
    add_legend(axes, beside=True)
    return figure


def _cost_text(row: pd.Series) -> str:
    """The part of a setting that decides its cost."""
    guided = "" if pd.isna(row["guidance"]) else "no guidance" if row["guidance"] == 1 else "guided"
    steps = setting_text(row[[axis for axis in ("sampler_steps", "sampler_options") if pd.notna(row[axis])]])
    return ", ".join(text for text in (steps, guided) if text)


def averaging(analysis: Analysis) -> Chart:
    """Prompt accuracy of averaged weights less that of raw ones, run by run, at one setting."""
    return Chart(
        name="averaged-against-raw-weights",
        title="What averaging the weights gains",
        caption="A marker per run, every size and seed; both weights at the sampler setting that validation conditions chose for "
        "prompt accuracy with averaged ones. Above zero averaging helps.",
        draw=partial(_draw_averaging, analysis),
        missing="" if len(_both_weights(analysis)) else "no run was sampled with raw weights too",
    )


def _both_weights(analysis: Analysis) -> pd.DataFrame:
    averaged, raw = analysis.rows("prompt_accuracy"), analysis.rows("prompt_accuracy", ema=False)
    return averaged.merge(raw[["run_id", "prompt_accuracy"]], on="run_id", suffixes=("", "_raw"))


def _draw_averaging(analysis: Analysis) -> Figure:
    methods, both = analysis.methods, _both_weights(analysis)
    gain = both["prompt_accuracy"] - both["prompt_accuracy_raw"]
    label = "accuracy of averaged less raw weights"
    one = both["flops_budget"].nunique() == 1
    room = 2.0 if one else legend_room(methods)
    figure = new_figure(6.4 + room, 1.2 + 0.34 * len(methods) if one else 4.2, protocol_line(both))
    axes = figure.add_subplot()
    for row, method in enumerate(methods):
        drawn, mine = look(method, methods), both["method"] == method
        x, y = (gain[mine], [row] * int(mine.sum())) if one else (both[mine]["flops_budget"], gain[mine])
        axes.plot(x, y, ls="", marker=drawn.marker, color=drawn.color, alpha=0.8, label=method, gid=f"{method}: seeds")
    if one:
        axes.axvline(0, color=GREY, lw=0.8)
        finish_axes(axes, x=label)
        name_rows(axes, methods)
    else:
        axes.axhline(0, color=GREY, lw=0.8)
        axes.set_xscale("log")
        finish_axes(axes, x=TRAINING_AXIS, y=label)
        add_legend(axes)
    return figure
