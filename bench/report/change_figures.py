"""What one change of a method does, a row for each."""

from __future__ import annotations

from functools import partial
from typing import Any

from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.analysis.single_changes import METRIC, Change, single_changes
from bench.progress import format_number
from bench.report.style import Chart, finish_axes, look, name_rows, panels, protocol_line, setting_of

PANEL, LETTER = 2.8, 0.065
"""Inches of a panel, and of a letter of its rows' names."""


def fid_after_one_change(analysis: Analysis) -> Chart:
    """FID of one method over that of another that differs from it in one thing; a row per pair, a panel per budget."""
    found = single_changes(analysis)
    rows = analysis.best_runs(METRIC)
    established = sum(change.is_established for change in found)
    return Chart(
        name="fid-after-one-change",
        title="What one change does",
        caption="Pairs of methods that differ in one thing: FID of the second over that of the first at equal training FLOPs, "
        f"best size, {setting_of(METRICS[METRIC], rows)}; left of 1 the change helps. Bars: 95 % Welch intervals over seeds. "
        f"Filled: chance is ruled out after Holm's correction over all {len(found)} ({established} are).",
        draw=partial(_draw, analysis, found),
        missing=""
        if found
        else "no two methods with several seeds differ in order, attention, tokens per step, loss or autoencoder alone",
    )


def _draw(analysis: Analysis, found: list[Change]) -> Figure:
    labels = {(c.first, c.second): f"{c.what}\n{c.first} → {c.second}" for c in found}
    places = {pair: place for place, pair in enumerate(labels)}
    budgets = sorted({change.budget for change in found})
    titles = [f"{format_number(budget)} training FLOPs" for budget in budgets]
    note = protocol_line(analysis.best_runs(METRIC))
    room = LETTER * max(len(line) for label in labels.values() for line in label.split("\n"))
    figure, every = panels(titles, note, width=PANEL + room / len(budgets), height=0.9 + 0.42 * len(labels))
    traits = list(dict.fromkeys(change.trait for change in found))
    for axes, budget in zip(every, budgets, strict=True):
        axes.set_xscale("log")
        axes.axvline(1.0, color="#bbbbbb", lw=0.8, zorder=0)
        for change in (c for c in found if c.budget == budget):
            place, drawn = places[change.first, change.second], look(change.trait, traits)
            style: dict[str, Any] = {"color": drawn.color, "marker": drawn.marker, "ms": 6, "ls": ""}
            axes.plot(
                [change.ratio.low, change.ratio.high], [place, place], color=drawn.color, lw=1.2, gid=f"{change.second}: interval"
            )
            filled = drawn.color if change.is_established else "white"
            axes.plot([change.ratio.value], [place], mfc=filled, gid=f"{change.first} to {change.second}: ratio", **style)
        finish_axes(axes, x="ratio of FIDs, second over first")
    name_rows(every[0], list(labels.values()))
    every[0].tick_params(axis="y", labelsize=8)
    return figure
