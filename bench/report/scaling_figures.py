"""Quality against training compute, or by method where there is one budget."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import FITTED, METRICS, Metric
from bench.analysis.scaling import ScalingFit
from bench.progress import format_number
from bench.report.style import (
    GREY,
    TRAINING_AXIS,
    Chart,
    Look,
    add_legend,
    at_top_budget,
    autoencoder_text,
    finish_axes,
    heading,
    legend_room,
    look,
    name_rows,
    new_figure,
    protocol_line,
    setting_of,
    shown_values,
    slug,
    uses_log_scale,
)

LIMITS = {"fid": "fid_autoencoder", "prompt_accuracy": "prompt_accuracy_ceiling"}
"""Per metric the column of what the autoencoders themselves reach."""


def quality_against_training(analysis: Analysis, name: str) -> Chart:
    """Metric against training FLOPs: every run, the mean over seeds of the best size, and where a fit exists its curve."""
    rows, best = analysis.rows(name), analysis.best_runs(name)
    fits = _fits(analysis, name)
    said = [f"Large markers: mean over seeds of the best size at each budget, {setting_of(METRICS[name], rows)}."]
    if best.groupby(["method", "flops_budget"]).size().max() > 1:
        said.append("Small filled markers: its runs, one per training seed.")
    if len(rows) > len(best):
        said.append("Hollow markers: runs of other sizes.")
    if fits:
        said.append("Curves: the fitted law with its 95 % band, dotted beyond the data; below, the residuals of its runs.")
    if len(autoencoder_limits(rows, name)):
        said.append("Dotted: what the autoencoder itself reaches.")
    return Chart(
        name=slug(f"{name}-against-training-flops"),
        title=heading(f"{METRICS[name].label} against training FLOPs"),
        caption=" ".join(said),
        draw=partial(_draw_training, analysis, name),
        missing=_several_tokenizers(METRICS[name], rows)
        or ("one budget has no curve" if rows["flops_budget"].nunique() < 2 else ""),
    )


def _several_tokenizers(metric: Metric, rows: pd.DataFrame) -> str:
    """Why values of several tokenizers are not drawn on one axis; empty where they compare."""
    found = rows["tokenizer"].nunique()
    if metric.compares != "within a tokenizer" or found < 2:
        return ""
    return f"likelihoods of {found} tokenizers' codes do not compare"


def _fits(analysis: Analysis, name: str) -> dict[str, ScalingFit]:
    return {m: f for m, f in analysis.fits(name).items() if f.law is not None} if name in FITTED else {}


def _draw_training(analysis: Analysis, name: str) -> Figure:
    metric, rows, best, methods = analysis.metric(name), analysis.rows(name), analysis.best_runs(name), analysis.methods
    fits = _fits(analysis, name)
    figure = new_figure(6.4 + legend_room(methods), 6.2 if fits else 4.6, protocol_line(rows))
    if fits:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    else:
        axes, below = figure.add_subplot(), None
    axes.set_xscale("log")
    others = rows[~rows["run_id"].isin(best["run_id"])]
    for method in methods:
        drawn, mine = look(method, methods), best[best["method"] == method]
        _points(axes, others[others["method"] == method], name, drawn, f"{method}: other sizes", filled=False)
        _points(axes, mine, name, drawn, f"{method}: seeds")
        mean, fit = mine.groupby("flops_budget")[name].mean(), fits.get(method)
        axes.plot(
            mean.index,
            mean,
            label=method,
            gid=f"{method}: mean",
            ms=7,
            lw=1.6,
            color=drawn.color,
            marker=drawn.marker,
            ls="" if fit else drawn.line,
        )
        if fit and below is not None:
            _draw_fit(axes, below, fit, metric, drawn)
    limits = autoencoder_limits(rows, name)
    for index, value in enumerate(limits):
        axes.axhline(value, color=GREY, ls=":", lw=0.9, gid="limit", label="" if index else autoencoder_text(limits))
    finish_axes(axes, x="" if fits else TRAINING_AXIS, y=metric.label, log_y=uses_log_scale(metric, rows[name]))
    add_legend(axes)
    if below is not None:
        below.axhline(0, color=GREY, lw=0.8)
        finish_axes(below, x=TRAINING_AXIS, y="log observed\nover fitted")
    return figure


def _points(axes: Axes, rows: pd.DataFrame, name: str, drawn: Look, gid: str, *, filled: bool = True) -> None:
    """A small marker per run."""
    fill = drawn.color if filled else "none"
    axes.plot(
        rows["flops_budget"],
        rows[name],
        ls="",
        marker=drawn.marker,
        color=drawn.color,
        mfc=fill,
        ms=4,
        alpha=0.6 if filled else 0.4,
        gid=gid,
    )


def _draw_fit(axes: Axes, below: Axes, fit: ScalingFit, metric: Metric, drawn: Look) -> None:
    """Curve, band and residuals of one method."""
    assert fit.law is not None
    low, high = np.log10(fit.compute.min()), np.log10(fit.compute.max())
    for start, end, line in ((low, high, drawn.line), (high, high + 0.5, ":")):
        compute = np.logspace(start, end, 60)
        low_edge, _, high_edge = shown_values(metric, fit.band(compute))
        axes.plot(compute, shown_values(metric, fit.law(compute)), color=drawn.color, ls=line, lw=1.4, gid=f"{fit.method}: law")
        axes.fill_between(compute, low_edge, high_edge, color=drawn.color, alpha=0.15, lw=0)
    below.plot(fit.compute, fit.residuals, ls="", marker=drawn.marker, color=drawn.color, ms=3, gid=f"{fit.method}: residuals")


def autoencoder_limits(rows: pd.DataFrame, name: str) -> pd.Series:
    """What each tokenizer's autoencoder reaches, by its name; empty for metrics without such a limit."""
    if name not in LIMITS:
        return pd.Series(dtype=float)
    return rows.dropna(subset=[LIMITS[name]]).groupby("tokenizer")[LIMITS[name]].first()


def quality_by_method(analysis: Analysis, name: str) -> Chart:
    """Metric of each method at the one budget of a table: every seed, and the mean."""
    rows, best = analysis.rows(name), analysis.best_runs(name)
    said = f"At {format_number(rows['flops_budget'].max())} training FLOPs per run, best mean first: the mean over seeds (bar)"
    said += f", and each seed's run (points), {setting_of(METRICS[name], rows)}."
    limits = autoencoder_limits(at_top_budget(rows), name)
    if len(limits):
        said += " Dotted: what the autoencoder itself reaches."
    return Chart(
        name=slug(f"{name}-by-method"),
        title=heading(f"{METRICS[name].label} by method"),
        caption=said,
        draw=partial(_draw_methods, analysis, name),
        missing=_several_tokenizers(METRICS[name], rows)
        or ("the curves over budgets show it" if best["flops_budget"].nunique() != 1 else ""),
    )


def _draw_methods(analysis: Analysis, name: str) -> Figure:
    metric, best = analysis.metric(name), at_top_budget(analysis.best_runs(name))
    means = best.groupby("method")[name].mean().sort_values(ascending=not metric.higher_is_better, kind="stable")
    figure = new_figure(8.4, 1.2 + 0.34 * len(means), protocol_line(best))
    axes = figure.add_subplot()
    if uses_log_scale(metric, best[name]):
        axes.set_xscale("log")
    for row, (method, mean) in enumerate(means.items()):
        drawn, seeds = look(str(method), analysis.methods), best[best["method"] == method][name]
        axes.plot([mean], [row], ls="", marker="|", ms=18, mew=2, color=drawn.color, gid=f"{method}: mean")
        axes.plot(
            seeds, [row] * len(seeds), ls="", marker=drawn.marker, ms=5, alpha=0.7, color=drawn.color, gid=f"{method}: seeds"
        )
    limits = autoencoder_limits(best, name)
    for index, value in enumerate(limits):
        axes.axvline(value, color=GREY, ls=":", lw=0.9, gid="limit", label="" if index else autoencoder_text(limits))
    finish_axes(axes, x=metric.label)
    name_rows(axes, [str(m) for m in means.index])
    add_legend(axes)
    return figure
