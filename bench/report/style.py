"""How every figure looks: one color, marker and line per method, ticks that people read, and a caption of the protocol."""

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

from bench.analysis.laws import Array
from bench.analysis.metrics import ORDER, Metric

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe & Ito 2008, distinct for color-blind readers."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), "-")
TRAINING_AXIS = "training FLOPs per run (forward + backward, 1 multiply-add = 2)"
INSIDE_LEGEND = 5
"""Most entries that a legend inside the axes may have."""


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


def finish_axes(axes: Axes, *, label: str = "", log: bool = False) -> None:
    """Label the vertical axis, set its scale, and take away what is not data."""
    axes.set_ylabel(label)
    if log:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis)
    if axes.get_xscale() == "log":
        _log_ticks(axes.xaxis)
    axes.set_axisbelow(True)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def add_legend(axes: Axes, *, beside: bool = False) -> None:
    """Inside where there are few methods, beside the axes where it would hide the data."""
    entries = len(axes.get_legend_handles_labels()[0])
    if not entries:
        return
    if beside or entries > INSIDE_LEGEND:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.legend(frameon=False, fontsize=8)


def legend_room(methods: Sequence[str]) -> float:
    """Inches that a legend beside the axes needs."""
    return 3.0 if len(methods) > INSIDE_LEGEND else 0.0


def at_top_budget(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the top budget."""
    return rows[rows["flops_budget"] == rows["flops_budget"].max()]


def measured_columns(rows: pd.DataFrame, columns: dict[str, str]) -> dict[str, str]:
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


def new_figure(width: float, height: float, note: str) -> Figure:
    """An empty figure, inches, with the protocol in small print below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(textwrap.fill(note, round(width * 20)), fontsize=6.5, color="#555555")
    return figure


def shown_values(metric: Metric, shortfall: Array) -> Array:
    """From what is fitted back to what is plotted."""
    return np.asarray(1 - shortfall) if metric.share else shortfall


def uses_log_scale(metric: Metric, rows: pd.DataFrame) -> bool:
    """Whether a metric is drawn on a logarithmic axis: distances are, unless one is not positive."""
    return not metric.higher_is_better and bool((rows[metric.column] > 0).all())
