"""A sweep's values over the committed reference of the same experiment."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.analysis.reproduction import REPRODUCED, Reproduced
from bench.report.style import (
    Chart,
    finish_axes,
    heading,
    look,
    loss_label,
    panels,
    protocol_line,
    shown_values,
    slug,
    uses_log_scale,
)


def reproduction_charts(analysis: Analysis, reference: Analysis, found: list[Reproduced]) -> list[Chart]:
    """For each metric a panel per method: the reference with its prediction intervals, and what this sweep measured."""
    return [
        Chart(
            name=slug(f"{name}-reproduction"),
            title=heading(f"{METRICS[name].label}: this sweep over the reference"),
            caption="Line and band: the reference's mean and the 95 % prediction interval of this sweep's. Markers: this sweep, "
            "mean over its seeds; hollow where it lies outside."
            + (" Dashed: the law fitted to the reference." if _laws(reference, name) else ""),
            draw=partial(_draw, analysis, reference, name, [each for each in found if each.metric == name]),
        )
        for name in REPRODUCED
        if any(each.metric == name for each in found)
    ]


def _laws(reference: Analysis, name: str) -> bool:
    return any(fit.law is not None for fit in reference.fits(name).values())


def _draw(analysis: Analysis, reference: Analysis, name: str, found: list[Reproduced]) -> Figure:
    metric, rows = analysis.metric(name), analysis.rows(name)
    methods = [method for method in reference.methods if any(each.method == method for each in found)]
    own_scale = metric.compares == "within a method"
    figure, every = panels(methods, protocol_line(rows), height=3.3, one_scale=not own_scale)
    for index, (axes, method) in enumerate(zip(every, methods, strict=True)):
        drawn, mine = look(method, analysis.methods), sorted((e for e in found if e.method == method), key=lambda e: e.budget)
        budgets = [each.budget for each in mine]
        axes.set_xscale("log")
        axes.plot(budgets, [e.expected.value for e in mine], color=drawn.color, lw=1.2, gid=f"{method}: reference")
        low, high = [e.expected.low for e in mine], [e.expected.high for e in mine]
        axes.fill_between(budgets, low, high, color=drawn.color, alpha=0.15, lw=0)
        fit = reference.fits(name)[method]
        if fit.law is not None:
            compute = np.geomspace(fit.compute.min(), fit.compute.max(), 60)
            axes.plot(compute, shown_values(metric, fit.law(compute)), color=drawn.color, ls="--", lw=1, gid=f"{method}: law")
        for inside, fill in ((True, drawn.color), (False, "none")):
            some = [each for each in mine if each.inside == inside]
            where = "inside" if inside else "outside"
            axes.plot(
                [e.budget for e in some],
                [e.value for e in some],
                ls="",
                marker=drawn.marker,
                ms=7,
                color=drawn.color,
                mfc=fill,
                gid=f"{method}: {where}",
            )
        label = loss_label(rows[rows["method"] == method]) if own_scale else "" if index else metric.label
        finish_axes(axes, x="training FLOPs per run", y=label, log_y=uses_log_scale(metric, rows[name]))
    return figure
