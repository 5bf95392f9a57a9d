"""The validation loss against training compute, each method by itself."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.analysis.scaling import ScalingFit
from bench.report.style import Chart, finish_axes, look, loss_label, panels, protocol_line, setting_of, uses_log_scale

NAME = "validation_loss"


def loss_against_training(analysis: Analysis) -> Chart:
    """The loss of every run and of each budget's best size, a panel per method, with the fitted law where there is one."""
    rows = analysis.rows(NAME)
    said = "Each method on its own scale: losses of two methods do not compare. Hollow markers: every run. Large markers: "
    said += f"mean over seeds of the best size at each budget, {setting_of(METRICS[NAME], rows)}."
    if any(fit.law is not None for fit in analysis.fits(NAME).values()):
        said += " Curves: the fitted law with its 95 % band"
        carried = any(_is_carried(fit, rows[rows["method"] == method]) for method, fit in analysis.fits(NAME).items())
        said += ", carried on as thin dots through budgets with too few seeds for the fit." if carried else "."
    return Chart(
        name="validation-loss-against-training-flops",
        title="Validation loss against training FLOPs",
        caption=said,
        draw=partial(_draw, analysis),
        missing="one budget has no curve" if rows["flops_budget"].nunique() < 2 else "",
    )


def _is_carried(fit: ScalingFit, rows: pd.DataFrame) -> bool:
    """Whether a method has a law that leaves out some budgets of its rows."""
    return fit.law is not None and len(np.unique(fit.compute)) < rows["flops_budget"].nunique()


def _draw(analysis: Analysis) -> Figure:
    metric, rows, best = analysis.metric(NAME), analysis.rows(NAME), analysis.best_runs(NAME)
    methods = [method for method in analysis.methods if (rows["method"] == method).any()]
    figure, every = panels(methods, protocol_line(rows), height=3.3, one_scale=False)
    for axes, method in zip(every, methods, strict=True):
        drawn, mine = look(method, analysis.methods), rows[rows["method"] == method]
        mean, fit = best[best["method"] == method].groupby("flops_budget")[NAME].mean(), analysis.fits(NAME)[method]
        axes.set_xscale("log")
        axes.plot(
            mine["flops_budget"],
            mine[NAME],
            gid=f"{method}: runs",
            ls="",
            ms=4,
            alpha=0.4,
            mfc="none",
            color=drawn.color,
            marker=drawn.marker,
        )
        line = "" if fit.law is not None else drawn.line
        axes.plot(mean.index, mean, gid=f"{method}: mean", ls=line, ms=7, color=drawn.color, marker=drawn.marker)
        if fit.law is not None:
            compute = np.geomspace(fit.compute.min(), fit.compute.max(), 60)
            low, _, high = fit.band(compute)
            axes.plot(compute, fit.law(compute), gid=f"{method}: law", color=drawn.color, ls=drawn.line, lw=1.4)
            axes.fill_between(compute, low, high, color=drawn.color, alpha=0.15, lw=0)
            if _is_carried(fit, mine):
                every_budget = np.geomspace(mine["flops_budget"].min(), mine["flops_budget"].max(), 60)
                axes.plot(
                    every_budget, fit.law(every_budget), gid=f"{method}: carried on", color=drawn.color, ls=(0, (1, 3)), lw=1
                )
        finish_axes(axes, x="training FLOPs per run", y=loss_label(mine), log_y=uses_log_scale(metric, mine[NAME]))
    return figure
