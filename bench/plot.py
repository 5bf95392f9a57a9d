"""Figures: a results table in, a matplotlib Figure out. Reads no files, fits nothing, uses no global matplotlib state.

One color, marker and line style per method everywhere, told apart in greyscale too. Every axis names its unit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe & Ito 2008, distinct for color-blind readers."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), "-")
ORDER = ("diffusion", "next-token", "masked-token", "mar")
"""Built-ins keep their colors whichever methods a table holds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A column that is plotted as quality."""

    column: str
    label: str
    higher_is_better: bool
    log: bool = False
    error: str | None = None
    tuned_for: str = "prompt_accuracy"


METRICS = {
    "fid": Metric("fid", "FID, suite's CLIP features", False, log=True, error="fid_se", tuned_for="fid"),
    "kid": Metric("kid", "KID, suite's CLIP features", False, error="kid_se", tuned_for="fid"),
    "prompt_accuracy": Metric("prompt_accuracy", "exact prompt accuracy, unseen captions", True, error="prompt_accuracy_se"),
    "prompt_accuracy_heldout": Metric(
        "prompt_accuracy_heldout", "exact prompt accuracy, held-out pairs", True, error="prompt_accuracy_heldout_se"
    ),
    "clip_score": Metric("clip_score", "CLIP score (cosine, suite's CLIP)", True, error="clip_score_se"),
}

COSTS = {
    "flops_per_sample": "FLOPs per sampled image, guidance included",
    "latency_ms_b1_p50": "latency at batch 1, median, ms",
    "images_per_s": "throughput at the best batch, images/s",
}


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Methods of a table, built-ins first."""
    found = list(dict.fromkeys(frame["method"]))
    return [m for m in ORDER if m in found] + sorted(m for m in found if m not in ORDER)


def style(method: str, methods: Sequence[str]) -> dict[str, object]:
    """Color, marker and line style of a method."""
    others = [m for m in methods if m not in ORDER]
    index = ORDER.index(method) if method in ORDER else len(ORDER) + others.index(method)
    return {"color": COLORS[index % 8], "marker": MARKERS[index % 8], "linestyle": LINES[index % 8]}


def best_per_budget(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """For each method and budget, the size whose seed mean is best: columns value, spread (over seeds), error, num_seeds."""
    cells = (
        frame.dropna(subset=[metric.column])
        .groupby(["method", "flops_budget", "width", "depth"], as_index=False)
        .agg(
            value=(metric.column, "mean"),
            spread=(metric.column, "std"),
            error=(metric.error or metric.column, "mean"),
            num_seeds=("seed", "nunique"),
            num_params=("num_params", "first"),
        )
    )
    order = cells.sort_values("value", ascending=not metric.higher_is_better)
    return order.groupby(["method", "flops_budget"], as_index=False).first().sort_values(["method", "flops_budget"])


def _log_ticks(axis: Axis) -> None:
    """Short labels at 1, 2 and 5 of each decade, which do not run into each other."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.0e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-"))
    )
    axis.set_minor_formatter(NullFormatter())


def _finish(axes: Axes, metric: Metric) -> None:
    axes.set_ylabel(metric.label)
    if metric.log:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis)
    if axes.get_xscale() == "log":
        _log_ticks(axes.xaxis)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def caption(frame: pd.DataFrame) -> str:
    """The protocol line under a figure: N, guidance rule, seeds, device, protocol hash."""

    def values(name: str) -> str:
        found = sorted({str(int(v)) if isinstance(v, float) and v == int(v) else str(v) for v in frame[name].dropna()})
        return ", ".join(found) or "none"

    return (
        f"N={values('num_samples')} generated, {values('num_reference')} real; guidance chosen on validation captions; "
        f"EMA weights; seeds {values('seed')}; {values('device')}; {values('dtype')}; protocol {values('protocol')}"
    )


def _figure(width: float, height: float, note: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(textwrap.fill(note, round(width * 20)), fontsize=6.5, color="#555555")
    return figure


def quality_against_training(frame: pd.DataFrame, name: str) -> Figure:
    """Metric against training FLOPs: a line through the best size per budget, a point per run.

    Bars are one standard error of the metric at one training seed. Dotted lines: the metric's floor or ceiling.
    """
    metric, methods = METRICS[name], methods_of(frame)
    figure = _figure(6.4, 4.6, caption(frame))
    axes = figure.add_subplot()
    best = best_per_budget(frame, metric)
    for method in methods:
        look = style(method, methods)
        runs, line = frame[frame["method"] == method], best[best["method"] == method]
        axes.plot(
            runs["flops_budget"],
            runs[metric.column],
            ls="",
            marker=str(look["marker"]),
            color=str(look["color"]),
            ms=4,
            alpha=0.35,
        )
        axes.errorbar(line["flops_budget"], line["value"], yerr=line["error"], label=method, capsize=2, ms=6, lw=1.6, **look)  # type: ignore[arg-type]
    limits = {"fid": ("fid_autoencoder", "autoencoder"), "prompt_accuracy": ("prompt_accuracy_ceiling", "autoencoder")}
    if name in limits:
        column, text = limits[name]
        limit = frame.dropna(subset=[column]).groupby("tokenizer")[column].first()
        for index, (tokenizer, value) in enumerate(limit.items()):
            axes.axhline(value, color="#777777", ls=":", lw=0.9)
            kind = str(tokenizer).split("@")[0].split("-")[-1].upper()
            place, align = (0.02, "left") if index % 2 == 0 else (0.98, "right")
            axes.annotate(
                f"{kind} {text} {value:.3g}", (place, value), xycoords=("axes fraction", "data"), fontsize=7, ha=align, va="top"
            )
    axes.set_xscale("log")
    axes.set_xlabel("training FLOPs per run (forward + backward, 1 multiply-add = 2)")
    _finish(axes, metric)
    axes.legend(frameon=False, fontsize=8)
    return figure


def isoflop(frame: pd.DataFrame, name: str) -> Figure:
    """Metric against parameters, one curve per budget, one panel per method; a star on the best size."""
    metric, methods = METRICS[name], methods_of(frame)
    budgets = sorted(frame["flops_budget"].unique())
    figure = _figure(3.1 * len(methods), 3.6, caption(frame))
    panels = np.atleast_1d(figure.subplots(1, len(methods), sharey=True))
    for axes, method in zip(panels, methods, strict=True):
        rows = frame[frame["method"] == method]
        for index, budget in enumerate(budgets):
            cells = rows[rows["flops_budget"] == budget].groupby("num_params")[metric.column].mean()
            shade = str(0.75 - 0.75 * index / max(1, len(budgets) - 1))
            axes.plot(cells.index, cells.values, marker=MARKERS[index % 8], color=shade, label=f"{budget:.1e}")
            if len(cells) > 1:
                best = cells.idxmax() if metric.higher_is_better else cells.idxmin()
                axes.plot([best], [cells[best]], marker="*", ms=13, color=COLORS[1], ls="", zorder=5)
        axes.set_title(method, fontsize=9)
        axes.set_xscale("log")
        axes.set_xlabel("trainable parameters, millions")
        _finish(axes, metric)
        sizes = sorted(rows["num_params"].unique())
        axes.set_xticks(sizes, [f"{size / 1e6:.3g}" for size in sizes])
        axes.set_ylabel(metric.label if axes is panels[0] else "")
    panels[-1].legend(title="FLOPs per run", fontsize=7, title_fontsize=7, frameon=False)
    return figure


def quality_against_cost(frame: pd.DataFrame, name: str) -> Figure:
    """Metric of the top-budget runs against the three costs of sampling."""
    metric, methods = METRICS[name], methods_of(frame)
    top = frame[frame["flops_budget"] == frame["flops_budget"].max()]
    figure = _figure(11.5, 3.8, caption(top))
    for axes, (column, label) in zip(figure.subplots(1, 3, sharey=True), COSTS.items(), strict=True):
        for method in methods:
            look = style(method, methods)
            rows = top[top["method"] == method]
            axes.errorbar(
                rows[column],
                rows[metric.column],
                yerr=rows[metric.error],
                ls="",
                marker=str(look["marker"]),
                color=str(look["color"]),
                label=method,
                capsize=2,
            )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        _finish(axes, metric)
    for axes in figure.axes[1:]:
        axes.set_ylabel("")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def seen_against_held_out(frame: pd.DataFrame) -> Figure:
    """Prompt accuracy on unseen captions of seen pairs against held-out pairs; on the diagonal nothing is lost."""
    methods = methods_of(frame)
    figure = _figure(4.8, 4.6, caption(frame))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
    for method in methods:
        look = style(method, methods)
        rows = frame[frame["method"] == method]
        axes.plot(
            rows["prompt_accuracy"],
            rows["prompt_accuracy_heldout"],
            ls="",
            marker=str(look["marker"]),
            color=str(look["color"]),
            label=method,
            alpha=0.8,
        )
    axes.set_xlabel(METRICS["prompt_accuracy"].label)
    _finish(axes, METRICS["prompt_accuracy_heldout"])
    axes.legend(frameon=False, fontsize=8)
    return figure


def all_figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Every figure that the finished test rows of a table allow, by file name."""
    figures = {f"{name}-against-training-flops": quality_against_training(frame, name) for name in METRICS}
    for name in ("fid", "prompt_accuracy"):
        figures[f"isoflop-{name}"] = isoflop(frame, name)
        figures[f"{name}-against-sampling-cost"] = quality_against_cost(frame, name)
    figures["seen-against-held-out"] = seen_against_held_out(frame)
    return {name.replace("_", "-"): figure for name, figure in figures.items()}
