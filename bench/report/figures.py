"""Which figures a table allows."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.report.prompt_figures import attributes, seen_against_held_out
from bench.report.sampling_figures import (
    COSTS,
    PARTS,
    SAMPLER_AXES,
    averaging,
    flops_by_part,
    quality_against_cost,
    sampler_curves,
)
from bench.report.scaling_figures import best_sizes, isoflop, quality_against_training
from bench.report.style import at_top_budget, measured_columns


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
        top = at_top_budget(rows)
        if measured_columns(top, COSTS):
            for name in ("fid", "prompt_accuracy"):
                figures[f"{name}-against-sampling-cost"] = lambda name=name: quality_against_cost(analysis, name)  # type: ignore[misc]
        if rows["prompt_accuracy_heldout"].notna().any():
            figures["seen-against-held-out"] = lambda: seen_against_held_out(analysis)
        if top["prompt_accuracy_count"].notna().any():
            figures["attributes"] = lambda: attributes(analysis)
        if measured_columns(top, PARTS):
            figures["sampling-flops-by-part"] = lambda: flops_by_part(analysis)
        if len(analysis.rows("prompt_accuracy", ema=False)):
            figures["averaged-against-raw-weights"] = lambda: averaging(analysis)
    return {name.replace("_", "-"): draw for name, draw in figures.items()}
