"""How every figure looks: one color, marker and line per method, numbers written one way, and the protocol in small print."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bench.analysis.laws import Array
from bench.analysis.metrics import METRICS, ORDER, Metric
from bench.progress import format_number
from bench.results.table import TUNED

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B0A50")
"""Okabe & Ito 2008 with a dark red in place of the yellow, which white paper swallows."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))
GREY = "#777777"
TRAINING_AXIS = "training FLOPs per run (forward + backward, 1 multiply-add = 2)"
INSIDE_LEGEND = 5
"""Most entries that a legend inside the axes may have."""
NARROW_DECADES = 0.6
TICKS = ((1.8, (1.0, 2.0, 5.0)), (2.2, (1.0, 3.0)), (np.inf, (1.0,)))
"""Labels of each decade, by the decades up to which they do not run into each other in the narrowest panel."""
TICK_DIGITS = 6
"""Of a tick: its value is round already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure that a table may allow: what it is called, what its reader should know, and how it is drawn."""

    name: str
    """Of its files, without the ending."""
    title: str
    caption: str = ""
    draw: Callable[[], Figure]
    missing: str = ""
    """Why there is nothing to draw, in words; empty when there is something."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


def heading(text: str) -> str:
    """A title that begins with a capital, whatever its metric is called."""
    return text[0].upper() + text[1:]


def slug(name: str) -> str:
    """A name as files and links write it."""
    return name.replace("_", "-")


def look(method: str, methods: Sequence[str]) -> Look:
    """Built-ins keep theirs whichever methods a table holds; where colors return, marker and line differ."""
    others = [m for m in methods if m not in ORDER]
    index = ORDER.index(method) if method in ORDER else (len(ORDER) if len(methods) > len(others) else 0) + others.index(method)
    return Look(COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)], LINES[index % len(LINES)])


def _label_ticks(axis: Axis, scale: float = 1.0) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value * scale, TICK_DIGITS)))
    axis.set_minor_formatter(NullFormatter())


def _finish_axis(axis: Axis, scale: float) -> None:
    """Ticks that do not run into each other: on a logarithmic axis those of TICKS, and even ones when it is short."""
    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        decades = np.log10(high / low)
        if decades < NARROW_DECADES:
            axis.set_major_locator(MaxNLocator(5))
            axis.set_minor_locator(NullLocator())
        else:
            axis.set_major_locator(LogLocator(subs=next(subs for most, subs in TICKS if decades <= most)))
    _label_ticks(axis, scale)


def finish_axes(axes: Axes, *, x: str = "", y: str = "", log_y: bool = False, x_scale: float = 1.0) -> None:
    """Name the axes, set the vertical scale, write the ticks (times x_scale), and take away what is not data."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if log_y:
        axes.set_yscale("log")
    _finish_axis(axes.xaxis, x_scale)
    _finish_axis(axes.yaxis, 1.0)
    axes.set_axisbelow(True)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row of the axes for each name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def few_ticks(axis: Axis, values: Iterable[float]) -> None:
    """Ticks at the values that were tried, or at round numbers when there are many."""
    tried = sorted(set(values))
    if len(tried) <= 8:
        axis.set_ticks(tried)
        axis.set_ticks([], minor=True)
    elif axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(6))
    _label_ticks(axis)


def add_legend(axes: Axes, *, beside: bool = False, title: str = "") -> None:
    """Inside where there are few entries, beside the axes where it would hide the data."""
    entries = len(axes.get_legend_handles_labels()[0])
    if not entries:
        return
    if beside or entries > INSIDE_LEGEND:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), title=title, title_fontsize=8)
    else:
        axes.legend(frameon=False, fontsize=8, title=title, title_fontsize=8)


def legend_room(methods: Sequence[str]) -> float:
    """Inches that a legend beside the axes needs."""
    return 0.6 + 0.075 * max(map(len, methods)) if len(methods) > INSIDE_LEGEND else 0.0


def panels(
    names: Sequence[str], note: str, *, width: float = 3.1, height: float = 3.1, one_scale: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each name, up to five in a line, on one vertical scale or each on its own; the names stand above
    them."""
    columns = min(len(names), 5)
    lines = -(-len(names) // columns)
    figure = new_figure(width * columns, height * lines + 0.4, note)
    figure.set_layout_engine("constrained", hspace=0.08)
    every = list(figure.subplots(lines, columns, sharey=one_scale, squeeze=False).ravel())
    for axes in every[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(every, names, strict=False):
        axes.set_title(textwrap.fill(name, 26, break_long_words=False), fontsize=9)
    return figure, every[: len(names)]


def at_top_budget(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the top budget."""
    return rows[rows["flops_budget"] == rows["flops_budget"].max()]


def measured_columns(rows: pd.DataFrame, columns: dict[str, str]) -> dict[str, str]:
    """The columns that hold a value."""
    return {column: text for column, text in columns.items() if rows[column].notna().any()}


def setting_of(metric: Metric, rows: pd.DataFrame) -> str:
    """In words: which sampler setting test rows of a metric were drawn at, or that none has to do with it."""
    if not metric.of_images:
        return "on images that no run trains on, with the same noise for every run"
    chosen = [set(str(names).split()) for names in rows["tuned_for"]]
    target = next((name for name in (metric.tuned_for, *TUNED) if all(name in names for names in chosen)), metric.tuned_for)
    return f"at the sampler setting that validation conditions chose for {METRICS[target].label}"


def loss_label(rows: pd.DataFrame) -> str:
    """An axis of the validation loss of one method: its unit, on two lines where it is long."""
    units = " and ".join(sorted(rows["loss_unit"].dropna().unique()))
    return textwrap.fill(f"validation loss, {units}" if units else "validation loss", 34)


def protocol_line(rows: pd.DataFrame) -> str:
    """Under a figure: N, reference and network, seeds, device, number format and protocol, as far as the rows name them."""

    def values(name: str) -> str:
        found = rows[name].dropna().unique() if name in rows else ()
        return ", ".join(
            sorted({format_number(float(v)) if isinstance(v, int | float | np.integer | np.floating) else str(v) for v in found})
        )

    parts = (
        ("N = {} generated images", "num_samples"),
        ("compared with {} real ones", "num_reference"),
        ("{}", "reference"),
        ("features {}", "fid_network"),
        ("training seeds {}", "seed"),
        ("sampling seed {}", "sample_seed"),
        ("{}", "device"),
        ("{}", "dtype"),
        ("protocol {}", "protocol"),
    )
    return "; ".join(text.format(found) for text, name in parts if (found := values(name)))


def new_figure(width: float, height: float, note: str) -> Figure:
    """An empty figure, inches, with the protocol in small print below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(textwrap.fill(note, round(width * 18), break_on_hyphens=False), fontsize=6.5, color="#555555")
    return figure


def shown_values(metric: Metric, shortfall: Array) -> Array:
    """From what is fitted (n,) back to what is plotted (n,)."""
    return np.asarray(1 - shortfall) if metric.share else shortfall


def shades(num: int) -> list[tuple[float, float, float, float]]:
    """Colors of an ordered or unnamed series, light to dark; the colors of COLORS belong to methods."""
    return [tuple(color) for color in matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, num))]


def autoencoder_text(limits: pd.Series) -> str:
    """In a legend: what each tokenizer's autoencoder reaches, by its name."""
    kinds = {str(name).split("@")[0].removeprefix("autoencoder-").upper(): value for name, value in limits.items()}
    return "autoencoder: " + ", ".join(f"{kind} {format_number(value)}" for kind, value in kinds.items())


def uses_log_scale(metric: Metric, values: pd.Series) -> bool:
    """Whether a metric is drawn on a logarithmic axis: distances are, unless one is not positive."""
    return not metric.higher_is_better and bool((values > 0).all())
