"""What the page writes as tables and lists: fits, tuning, runs, provenance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.forecast import ForecastScore, check_forecast, forecast_summary, score_forecast
from bench.analysis.intervals import Interval
from bench.analysis.isoflop import OptimalPath
from bench.analysis.metrics import METRICS
from bench.analysis.scaling import ScalingFit
from bench.analysis.standing import MEASURES, Cell, standings
from bench.analysis.surfaces import SurfaceFit
from bench.analysis.tuning import Edge, rate_curves, rate_edges, rates_tried, rates_used, setting_edges, settings_tried
from bench.progress import format_number
from bench.report.figures import MAIN
from bench.results.columns import COLUMNS

FIT_COLUMNS = (
    "metric",
    "method",
    "exponent [95 %]",
    "offset [95 %]",
    "exponent with the measured floor [95 %]",
    "pure exponent",
    "AICc prefers",
    "held-out error with / without offset",
    "seed noise",
    "remark",
)
SURFACE_COLUMNS = ("metric", "method", "alpha of N [95 %]", "beta of D [95 %]", "offset [95 %]", "best N grows as C^a [95 %]")
PATH_COLUMNS = ("metric", "method", "quantity", "grows as C^a: a [95 %]")
FORECAST_COLUMNS = ("metric", "method", "predicted [95 %]", "observed mean", "runs inside", "interval score")
PATH_NAMES = {"num_params": "best size N", "images_seen": "images D that it sees"}
RATE_COLUMNS = ("chosen for", "method", "best in the search", "used by the smallest size")
EDGE_COLUMNS = ("method", "option", "chosen for", "choice", "tried", "runs")
STANDING_LABELS = {"prompt_accuracy": "accuracy", "prompt_accuracy_heldout": "held-out accuracy"}
"""Shorter than a figure's, for the head of a narrow column."""
PROVENANCE = """
protocol flop_rule tokenizer reference fid_network prompt_judge clip_checkpoint dinov2_network num_samples num_reference
sample_seed seed dtype device num_threads git_sha
""".split()


def interval_text(found: Interval) -> str:
    """An estimate with its interval."""
    return f"{format_number(found.value)} [{format_number(found.low)}, {format_number(found.high)}]"


def fit_row(name: str, fit: ScalingFit) -> list[str]:
    """A fit as FIT_COLUMNS."""
    assert fit.pure is not None
    return [
        METRICS[name].label,
        fit.method,
        interval_text(fit.exponent),
        interval_text(fit.offset),
        interval_text(fit.floored_exponent) if fit.floored_exponent else "no floor measured",
        format_number(fit.pure.exponents[0]),
        "with offset" if fit.prefers_offset else "without",
        f"{fit.held_out_error:.1%} / {fit.held_out_error_pure:.1%}",
        f"{fit.seed_noise:.1%}",
        "held-out error below twice the seed noise" if fit.extrapolates else "extrapolation not supported",
    ]


def surface_row(name: str, fit: SurfaceFit) -> list[str]:
    """A surface as SURFACE_COLUMNS."""
    alpha, beta, offset = (fit.interval(lambda p, i=i: p[:, i]) for i in (2, 3, 4))  # type: ignore[misc]
    texts = [interval_text(each) for each in (alpha, beta, offset.map(math.exp))]
    allocation = fit.allocation
    texts.append("unknown: a draw has no exponent" if allocation is None else interval_text(allocation))
    return [METRICS[name].label, fit.method, *texts]


def path_row(name: str, method: str, path: OptimalPath) -> list[str]:
    """How the best size, or its images, grow with compute, as PATH_COLUMNS."""
    assert path.exponent is not None
    return [METRICS[name].label, method, PATH_NAMES[path.what], interval_text(path.exponent)]


def forecasts(known: dict[str, Any], analysis: Analysis) -> list[dict[str, Any]]:
    """What was predicted before it was trained, and how it fared."""
    found = []
    for made in known.get("forecasts", ()):
        try:
            scores, changed = score_forecast(made, analysis), check_forecast(made, analysis.frame)
        except ValueError as error:  # of another protocol: said on the page, and the rest of the report stands
            scores, changed = [], str(error)
        said = forecast_summary(scores)
        if not scores:
            said = "; ".join(_prediction(each) for each in made["predictions"]) + f"; {said}"
        found.append(
            {
                "title": f"{format_number(made['budget'])} training FLOPs per run, sha256 {made['sha256'][:12]}",
                "said": f"{said[0].upper()}{said[1:]}.",
                "changed": changed,
                "rows": [_score_row(score) for score in scores],
            }
        )
    return found


def _prediction(said: dict[str, Any]) -> str:
    interval = interval_text(Interval(said["low"], said["value"], said["high"]))
    return f"{METRICS[said['metric']].label} of {said['method']} {interval}"


def _score_row(score: ForecastScore) -> list[str]:
    """A score as FORECAST_COLUMNS."""
    return [
        METRICS[score.metric].label,
        score.method,
        interval_text(score.predicted),
        f"{format_number(score.observed)}, {'inside' if score.held else 'outside'}",
        f"{score.num_inside} of {score.num_runs}",
        format_number(score.interval_score),
    ]


def reasons(found: Iterable[tuple[str, str, str]]) -> list[str]:
    """Each reason once, with what it holds for: of (topic, member, reason), "topic (members); topic (members): reason"."""
    groups: dict[str, dict[str, list[str]]] = {}
    for topic, member, reason in found:
        if reason:
            groups.setdefault(reason, {}).setdefault(topic, []).append(member)
    return [
        "; ".join(f"{topic} ({', '.join(members)})" for topic, members in topics.items()) + f": {reason}"
        for reason, topics in groups.items()
    ]


def run_cell(value: Any) -> dict[str, Any]:
    """A cell of the run table: what is shown, and what it sorts by."""
    if pd.isna(value):
        return {"text": "", "value": "", "number": False}
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"text": format_number(value) if number else str(value), "value": value, "number": number}


def provenance(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """What every number rests on, from the table's own columns."""
    found = [(name, sorted({run_cell(v)["text"] for v in frame[name].dropna().tolist()})) for name in PROVENANCE]
    spent = frame.drop_duplicates("run_id")
    stamps = frame["timestamp"].dropna()
    tuning = frame.drop_duplicates(["run_id", "tuning_flops"])["tuning_flops"].sum()
    totals = [
        ("training FLOPs, all runs", format_number(spent["flops_spent"].sum())),
        ("sampler tuning FLOPs, all runs", format_number(tuning)),
        ("evaluated", f"{stamps.min()} to {stamps.max()}" if len(stamps) else ""),
    ]
    return [(name, ", ".join(values)) for name, values in found if values] + totals


def counts_text(what: str, counts: dict[str, int]) -> str:
    """How many were tried, and whether every method had as many."""
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} {what} for every method."
    listed = ", ".join(f"{method} {count}" for method, count in counts.items())
    return f"Unequal numbers of {what}: {listed}. Methods with more had more chances."


def edge_row(edge: Edge) -> list[str]:
    """An edge as EDGE_COLUMNS."""
    tried = ", ".join(format_number(value) for value in edge.tried)
    choice = f"{format_number(edge.value)}, the {edge.end} of {len(edge.tried)}"
    return [edge.method, edge.option, METRICS[edge.metric].label, choice, tried, f"{edge.share[0]} of {edge.share[1]}"]


def standing_tables(analysis: Analysis) -> list[dict[str, Any]]:
    """Who stands where at the top budget, a table for each metric that samplers are chosen for."""
    return [
        {
            "chosen_for": METRICS[found.chosen_for].label,
            "budget": format_number(found.budget),
            "columns": [_standing_column(name) for name in found.columns],
            "places": [
                {
                    "method": place.method,
                    "setting": f"{place.size}; {place.setting or 'the only setting'}",
                    "cells": [_standing_cell(name, place.cells.get(name)) for name in found.columns],
                }
                for place in found.places
            ],
        }
        for found in standings(analysis)
    ]


def _standing_column(name: str) -> dict[str, str]:
    higher = MEASURES[name].higher_is_better
    arrow, better = ("\u2191", "higher") if higher else ("\u2193", "lower")
    return {"label": STANDING_LABELS.get(name, MEASURES[name].label), "meaning": COLUMNS[name], "arrow": arrow, "better": better}


def _standing_cell(name: str, cell: Cell | None) -> dict[str, str] | None:
    """A cell as the page writes it; None where nothing was measured."""
    if cell is None:
        return None
    seeds = "1 seed" if cell.num_seeds == 1 else f"{cell.num_seeds} seeds"
    low, high = format_number(cell.low), format_number(cell.high)
    extent = seeds if cell.num_seeds == 1 else f"{low} in {seeds}" if low == high else f"{low} to {high}"
    said = {"best": "best mean", "tied": "the seeds do not tell it from the best", "behind": "behind the best"}
    text = said.get(cell.mark, "not tested: a single seed")
    return {"mean": format_number(cell.mean), "range": extent, "mark": cell.mark, "said": f"{name}: {seeds}, {text}"}


def tuning(analysis: Analysis, search: pd.DataFrame | None) -> dict[str, Any]:
    """The tuning section: equal counts, the best rate per criterion beside the rate used, and choices at an edge."""
    counts = [counts_text("sampler settings tried", found)] if (found := settings_tried(analysis.frame)) else []
    rates: list[list[str]] = []
    edges = setting_edges(analysis)
    if search is not None:
        counts.append(counts_text("learning rates tried", rates_tried(search)))
        criteria = [name for name in MAIN if search[name].notna().any() and len(analysis.rows(name))]
        for name in criteria:
            used = rates_used(analysis, name)
            for curve in rate_curves(search, name):
                shown = ", ".join(format_number(rate) for rate in used.get(curve.method, []))
                rates.append([METRICS[name].label, curve.method, format_number(curve.best), shown])
        edges = [edge for name in criteria for edge in rate_edges(search, name)] + edges
    return {
        "counts": counts,
        "rate_columns": RATE_COLUMNS,
        "rates": rates,
        "edge_columns": EDGE_COLUMNS,
        "edges": [edge_row(edge) for edge in edges],
    }
