"""Which figures a table allows."""

from __future__ import annotations

import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.analysis.tuning import OPTIONS
from bench.report.change_figures import fid_after_one_change
from bench.report.frequency_figures import accuracy_by_frequency
from bench.report.loss_figures import loss_against_training
from bench.report.prompt_figures import attributes, seen_against_held_out
from bench.report.repetition_figures import loss_against_epochs
from bench.report.sampling_figures import averaging, flops_by_part, quality_against_flops, quality_against_speed
from bench.report.scaling_figures import quality_against_training, quality_by_method
from bench.report.size_figures import best_sizes, isoflop
from bench.report.style import Chart
from bench.report.tuning_figures import learning_rate_curves, sampler_curves

MAIN = ("fid", "prompt_accuracy")
"""Metrics that settings are chosen for and that get every figure."""
SIZED = ("validation_loss", *MAIN)
"""Metrics whose best sizes are looked for, the smoothest first."""


def all_charts(analysis: Analysis) -> list[Chart]:
    """Every figure of a table, also those that it does not allow: these say in `missing` why."""
    measured = [name for name in METRICS if len(analysis.rows(name))]
    main = [name for name in MAIN if name in measured]
    charts = []
    for name in measured:
        if METRICS[name].compares == "within a method":
            charts += [loss_against_training(analysis), loss_against_epochs(analysis)]
        else:
            charts += [quality_against_training(analysis, name), quality_by_method(analysis, name)]
    for name in [name for name in SIZED if name in measured]:
        charts += [isoflop(analysis, name), best_sizes(analysis, name)]
    for name in main:
        charts += [quality_against_flops(analysis, name), quality_against_speed(analysis, name)]
    if "fid" in measured:
        charts.append(fid_after_one_change(analysis))
    if "prompt_accuracy" in measured:
        charts += [seen_against_held_out(analysis), accuracy_by_frequency(analysis), attributes(analysis)]
        charts += [flops_by_part(analysis), averaging(analysis)]
    return charts


def tuning_charts(analysis: Analysis, search: pd.DataFrame | None) -> list[Chart]:
    """Figures of how methods were tuned: learning rates where there is a search, and each sampler option."""
    main = [name for name in MAIN if len(analysis.rows(name))]
    rates = [learning_rate_curves(search, name) for name in MAIN if search is not None and search[name].notna().any()]
    return rates + [sampler_curves(analysis, name, axis) for name in main for axis in OPTIONS]
