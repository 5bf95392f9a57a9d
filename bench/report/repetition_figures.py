"""What repeated images cost each paradigm."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import in_order
from bench.analysis.repetition import Repeated, repetition, tolerated
from bench.progress import format_number
from bench.report.style import Chart, add_legend, finish_axes, look, panels, protocol_line

HARM = 1.1
"""Loss over that without repetition whose epochs the caption names."""


def loss_against_epochs(analysis: Analysis) -> Chart:
    """Each paradigm's validation loss over that without repetition, against how often it saw each image; a panel per budget."""
    found = repetition(analysis)
    several = any(each.interval for each in found)
    return Chart(
        name="validation-loss-against-epochs",
        title="Repeated images",
        caption="Equal compute, fewer and fewer different images. Loss on images that no run trains on, over that of the same "
        "seed at the fewest epochs; "
        + ("bars are 95 % t intervals over seeds. " if several else "one seed. ")
        + f"{HARM:g} times the loss is reached at {_said(found)}.",
        draw=partial(_draw, analysis, found),
        missing="" if found else "all runs draw from one number of images",
    )


def _curves(found: list[Repeated]) -> dict[tuple[float, str], list[Repeated]]:
    """Points by budget and paradigm."""
    curves: dict[tuple[float, str], list[Repeated]] = {}
    for each in found:
        curves.setdefault((each.budget, each.paradigm), []).append(each)
    return curves


def _said(found: list[Repeated]) -> str:
    top = max((each.budget for each in found), default=0.0)
    curves = {name: curve for (budget, name), curve in _curves(found).items() if budget == top}
    epochs = {name: tolerated(curve, HARM) for name, curve in curves.items()}
    ranked = sorted(epochs, key=lambda name: epochs[name])
    reached = [f"{format_number(epochs[name], 2)} epochs ({name})" for name in ranked if epochs[name] < math.inf]
    never = [name for name in ranked if epochs[name] == math.inf]
    return ", ".join([*reached, *([f"none that was tried ({', '.join(never)})"] if never else [])])


def _draw(analysis: Analysis, found: list[Repeated]) -> Figure:
    curves = _curves(found)
    budgets = sorted({budget for budget, _ in curves})
    ordered = in_order(name for _, name in curves)
    titles = [f"{format_number(budget)} training FLOPs" for budget in budgets]
    figure, every = panels(titles, protocol_line(analysis.rows("validation_loss")), width=5.2, height=3.8)
    for axes, budget in zip(every, budgets, strict=True):
        axes.set_xscale("log")
        axes.axhline(1.0, color="#bbbbbb", lw=0.8, zorder=0)
        for name in ordered:
            drawn, curve = look(name, ordered), curves.get((budget, name), [])
            style: dict[str, Any] = {"color": drawn.color, "marker": drawn.marker, "ls": drawn.line}
            epochs, ratios = [each.epochs for each in curve], [each.ratio for each in curve]
            axes.plot(epochs, ratios, label=name, gid=f"{name}: ratios", **style)
            for each in curve:
                if each.interval:
                    ends = [each.interval.low, each.interval.high]
                    axes.plot([each.epochs] * 2, ends, color=drawn.color, lw=1.2, gid=f"{name}: interval")
        finish_axes(
            axes,
            x="epochs: how often each image was seen",
            y="validation loss over that without repetition" if axes is every[0] else "",
            log_y=True,
        )
    add_legend(every[-1])
    return figure
