"""Figures: an analysis in, a matplotlib Figure out. Reads no files, fits nothing, uses no global matplotlib state.

One color, marker and line style per method everywhere, told apart in greyscale too. Every axis names its unit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.analysis import FITTED, METRICS, ORDER, Analysis, Metric, best_per_budget
from bench.fit import Array, ScalingFit

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe & Ito 2008, distinct for color-blind readers."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), "-")
TRAINING_AXIS = "training FLOPs per run (forward + backward, 1 multiply-add = 2)"
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
INSIDE_LEGEND = 5
"""Most entries that a legend inside the axes may have."""
ATTRIBUTES = ("count", "shape", "color", "size", "relation")
SAMPLER_AXES = {
    "guidance": "guidance scale",
    "temperature": "sampling temperature",
    "sampler_steps": "sampler steps",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


def look(method: str, methods: Sequence[str]) -> Look:
    """Built-ins keep theirs whichever methods a table holds; beyond eight methods colors return with another marker."""
    others = [m for m in methods if m not in ORDER]
    index = ORDER.index(method) if method in ORDER else (len(ORDER) if len(methods) > len(others) else 0) + others.index(method)
    return Look(COLORS[index % 8], MARKERS[(index + index // 8) % 8], LINES[index % 8])


def number(value: float) -> str:
    """A short label: plain between 0.001 and 9,999, with an exponent elsewhere."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _log_ticks(axis: Axis) -> None:
    """Labels that do not run into each other: at 1, 2 and 5 of each decade, or each decade when there are many."""
    low, high = axis.get_view_interval()
    wide = low > 0 and np.log10(high / low) > 3
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def _finish(axes: Axes, *, label: str = "", log: bool = False) -> None:
    axes.set_ylabel(label)
    if log:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis)
    if axes.get_xscale() == "log":
        _log_ticks(axes.xaxis)
    axes.set_axisbelow(True)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, *, beside: bool = False) -> None:
    """Inside where there are few methods, beside the axes where it would hide the data."""
    entries = len(axes.get_legend_handles_labels()[0])
    if not entries:
        return
    if beside or entries > INSIDE_LEGEND:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.legend(frameon=False, fontsize=8)


def _room(methods: Sequence[str]) -> float:
    """Inches that a legend beside the axes needs."""
    return 3.0 if len(methods) > INSIDE_LEGEND else 0.0


def _top(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the top budget."""
    return rows[rows["flops_budget"] == rows["flops_budget"].max()]


def _measured(rows: pd.DataFrame, columns: dict[str, str]) -> dict[str, str]:
    """The columns that hold a value."""
    return {column: text for column, text in columns.items() if rows[column].notna().any()}


def caption(rows: pd.DataFrame) -> str:
    """The protocol line under a figure: N, reference and network, how settings were chosen, seeds, device, protocol hash."""

    def values(name: str) -> str:
        found = sorted({str(int(v)) if isinstance(v, float) and v == int(v) else str(v) for v in rows[name].dropna()})
        return ", ".join(found) or "none"

    return (
        f"N={values('num_samples')} generated, {values('num_reference')} real ({values('reference')}); features "
        f"{values('fid_network')}; settings chosen on validation conditions; "
        f"training seeds {values('seed')}; sampling seed {values('sample_seed')}; {values('device')}; {values('dtype')}; "
        f"protocol {values('protocol')}"
    )


def _figure(width: float, height: float, note: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(textwrap.fill(note, round(width * 20)), fontsize=6.5, color="#555555")
    return figure


def _shown(metric: Metric, shortfall: Array) -> Array:
    """From what is fitted back to what is plotted."""
    return np.asarray(1 - shortfall) if metric.share else shortfall


def _is_log(metric: Metric, rows: pd.DataFrame) -> bool:
    return not metric.higher_is_better and bool((rows[metric.column] > 0).all())


def quality_against_training(analysis: Analysis, name: str) -> Figure:
    """Metric against training FLOPs: points are runs, markers the best size per budget.

    Where a fit exists: its curve and 95 % band, dashed beyond the data, and the residuals below. Elsewhere a line through the
    means; bars are one standard error of the metric at one training seed. Dotted: the autoencoder's own limit.
    """
    metric, rows, methods = analysis.metric(name), analysis.rows(name), analysis.methods
    fits = {m: f for m, f in analysis.fits(name).items() if f.law is not None} if name in FITTED else {}
    figure = _figure(6.4 + _room(methods), 6.2 if fits else 4.6, caption(rows))
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
    _finish(axes, label=metric.label, log=_is_log(metric, rows))
    _legend(axes)
    if below is not None:
        below.axhline(0, color="#777777", lw=0.8)
        _finish(below, label="log observed\nover fitted")
    return figure


def _fitted(axes: Axes, below: Axes, fit: ScalingFit, metric: Metric, drawn: Look) -> None:
    """Curve, band and residuals of one method."""
    assert fit.law is not None
    low, high = np.log10(fit.compute.min()), np.log10(fit.compute.max())
    for start, end, line in ((low, high, drawn.line), (high, high + 0.5, ":")):
        compute = np.logspace(start, end, 60)
        axes.plot(compute, _shown(metric, fit.law(compute)), color=drawn.color, ls=line, lw=1.4)
        band = fit.band(compute)
        axes.fill_between(compute, _shown(metric, band[0]), _shown(metric, band[2]), color=drawn.color, alpha=0.15, lw=0)
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
    figure = _figure(3.1 * columns, 3.2 * lines + 0.4, caption(rows))
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
            _shown(metric, np.array([m.value for m in stars])),
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
        _finish(axes, label=metric.label if axes is panels[0] else "", log=_is_log(metric, rows))
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
    figure = _figure(8.4 + _room(methods), 3.9, caption(rows))
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
        _finish(axes, label=text, log=True)
    if best["num_params"].max() < 5 * best["num_params"].min():
        left.set_yscale("linear")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    _legend(right)
    return figure


def quality_against_cost(analysis: Analysis, name: str) -> Figure:
    """Metric of the top-budget runs against the costs of sampling at the setting chosen for accuracy; lines join the methods that
    no other beats on both axes."""
    metric, methods = analysis.metric(name), analysis.methods
    runs = analysis.rows("prompt_accuracy")
    top = _top(runs)
    figure = _figure(11.5 + _room(methods), 3.8, caption(top))
    costs = _measured(top, COSTS)
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
        _finish(axes, label="", log=_is_log(metric, top))
    figure.axes[0].set_ylabel(metric.label)
    _legend(figure.axes[-1])
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
    rows = _top(rows)
    figure = _figure(6.0 + _room(analysis.methods), 4.2, caption(rows))
    axes = figure.add_subplot()
    keys = ["method", "width", "depth", "seed", axis]
    grouped = rows.dropna(subset=[axis]).groupby(keys)[name]
    curves = (grouped.max() if metric.higher_is_better else grouped.min()).reset_index().groupby(["method", axis])[name].mean()
    for method in [m for m in analysis.methods if m in curves.index.get_level_values(0)]:
        drawn, line = look(method, analysis.methods), curves[method]
        axes.plot(line.index, line.values, color=drawn.color, marker=drawn.marker, ls=drawn.line, label=method)
    axes.set_xlabel(SAMPLER_AXES[axis])
    _finish(axes, label=f"{metric.label},\nvalidation conditions", log=_is_log(metric, rows))
    _legend(axes)
    return figure


def seen_against_held_out(analysis: Analysis) -> Figure:
    """Prompt accuracy on unseen captions of seen pairs against held-out pairs; on the diagonal nothing is lost."""
    rows, methods = analysis.rows("prompt_accuracy"), analysis.methods
    levels = {
        "prompt_accuracy_heldout": "all held-out captions",
        "prompt_accuracy_heldout_one": "one object of a held-out pair",
        "prompt_accuracy_heldout_both": "both objects of held-out pairs",
    }
    figure = _figure(11.0 + _room(methods), 4.2, caption(rows))
    levels = _measured(rows, levels)
    for axes, (column, text) in zip(figure.subplots(1, len(levels), sharey=True, squeeze=False)[0], levels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
        for method in methods:
            drawn, mine = look(method, methods), rows[rows["method"] == method]
            axes.errorbar(
                mine["prompt_accuracy"],
                mine[column],
                xerr=mine["prompt_accuracy_se"],
                yerr=mine[f"{column}_se"],
                ls="",
                marker=drawn.marker,
                color=drawn.color,
                label=method,
                alpha=0.8,
                lw=0.8,
            )
        axes.set_title(text, fontsize=9)
        axes.set_xlabel("exact prompt accuracy, seen pairs")
        _finish(axes)
    figure.axes[0].set_ylabel("exact prompt accuracy, held-out pairs")
    _legend(figure.axes[-1])
    return figure


def attributes(analysis: Analysis) -> Figure:
    """Each attribute's share at the top budget, their product (what independent errors would give), and the joint accuracy."""
    runs, methods = analysis.best_runs("prompt_accuracy"), analysis.methods
    top = _top(runs)
    columns = [f"prompt_accuracy_{name}" for name in ATTRIBUTES]
    figure = _figure(9.5, 3.9, caption(top))
    axes = figure.add_subplot()
    names = [*ATTRIBUTES, "product", "joint"]
    width = 0.8 / max(1, len(methods))
    hatches = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
    for index, method in enumerate(methods):
        mine = top[top["method"] == method]
        if mine.empty:
            continue
        means = mine[columns].mean().to_numpy()
        # two objects carry shape, color and size each
        product = means[0] * (means[1] * means[2] * means[3]) ** 2 * means[4]
        heights = [*means, product, mine["prompt_accuracy"].mean()]
        places = np.arange(len(names)) + (index - (len(methods) - 1) / 2) * width
        axes.bar(
            places,
            heights,
            width,
            color=look(method, methods).color,
            label=method,
            hatch=hatches[index % 8],
            edgecolor="white",
            lw=0.4,
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.02)
    _finish(axes, label="share of images (count, relation, joint)\nor of named objects")
    _legend(axes, beside=True)
    return figure


def flops_by_part(analysis: Analysis) -> Figure:
    """FLOPs of one sampled image at the top budget and the setting chosen for accuracy, stacked by part."""
    runs, methods = analysis.best_runs("prompt_accuracy"), analysis.methods
    top = _top(runs)
    means = top.groupby("method")[list(PARTS)].mean().reindex(methods)
    figure = _figure(7.0, 1.6 + 0.45 * len(methods), caption(top))
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
    _finish(axes)
    _legend(axes, beside=True)
    return figure


def averaging(analysis: Analysis) -> Figure:
    """FID of raw over averaged weights of each run, at the setting chosen for accuracy; above 1 averaging helps."""
    methods = analysis.methods
    averaged, raw = analysis.rows("prompt_accuracy"), analysis.rows("prompt_accuracy", ema=False)
    both = averaged.merge(raw[["run_id", "fid"]], on="run_id", suffixes=("", "_raw"))
    figure = _figure(6.0 + _room(methods), 4.0, caption(averaged))
    axes = figure.add_subplot()
    axes.axhline(1, color="#777777", lw=0.8)
    for method in methods:
        drawn, mine = look(method, methods), both[both["method"] == method]
        axes.plot(
            mine["flops_budget"], mine["fid_raw"] / mine["fid"], ls="", marker=drawn.marker, color=drawn.color, label=method
        )
    axes.set_xscale("log")
    axes.set_xlabel(TRAINING_AXIS)
    _finish(axes, label="FID of raw over averaged weights")
    _legend(axes)
    return figure


def _varied(analysis: Analysis) -> list[str]:
    """Options of the sampler that some method was tried at two values of."""
    tried = analysis.frame[analysis.frame["split"] == "validation"].groupby("method")
    return [axis for axis in SAMPLER_AXES if len(tried) and tried[axis].nunique().max() > 1]


def all_figures(analysis: Analysis) -> dict[str, Callable[[], Figure]]:
    """Every figure that a table allows, by file name; each is drawn when called."""
    figures: dict[str, Callable[[], Figure]] = {}
    with_rows = [name for name in METRICS if len(analysis.rows(name))]
    for name in with_rows:
        figures[f"{name}-against-training-flops"] = lambda name=name: quality_against_training(analysis, name)  # type: ignore[misc]
    for name in ("fid", "prompt_accuracy"):
        if name in with_rows:
            if analysis.rows(name).groupby("method")["num_params"].nunique().max() > 1:
                figures[f"isoflop-{name}"] = lambda name=name: isoflop(analysis, name)  # type: ignore[misc]
                figures[f"best-sizes-{name}"] = lambda name=name: best_sizes(analysis, name)  # type: ignore[misc]
            for axis in _varied(analysis):
                figures[f"{name}-against-{axis}"] = lambda name=name, axis=axis: sampler_curves(analysis, name, axis)  # type: ignore[misc]
    if "prompt_accuracy" in with_rows:
        rows = analysis.rows("prompt_accuracy")
        top = _top(rows)
        if _measured(top, COSTS):
            for name in ("fid", "prompt_accuracy"):
                figures[f"{name}-against-sampling-cost"] = lambda name=name: quality_against_cost(analysis, name)  # type: ignore[misc]
        if rows["prompt_accuracy_heldout"].notna().any():
            figures["seen-against-held-out"] = lambda: seen_against_held_out(analysis)
        if top["prompt_accuracy_count"].notna().any():
            figures["attributes"] = lambda: attributes(analysis)
        if _measured(top, PARTS):
            figures["sampling-flops-by-part"] = lambda: flops_by_part(analysis)
        if len(analysis.rows("prompt_accuracy", ema=False)):
            figures["averaged-against-raw-weights"] = lambda: averaging(analysis)
    return {name.replace("_", "-"): draw for name, draw in figures.items()}
