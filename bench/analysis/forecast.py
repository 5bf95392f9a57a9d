"""Forecasts: what the fitted laws say of a budget before anything is trained at it, and how they fared afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.intervals import LEVELS, Interval
from bench.analysis.metrics import FITTED, METRICS, Metric
from bench.analysis.scaling import ScalingFit
from bench.analysis.welch import ERROR_RATE

SCHEMA = 1
SAME_BUDGET = 0.01
"""Relative difference up to which two budgets are one: the tolerance of a run's own budget."""


def predict(fit: ScalingFit, metric: Metric, budget: float, *, seed: int = 0) -> Interval:
    """The metric of one new run at a budget, with the 95 % interval of its prediction.

    Each drawn curve gets the noise of a new seed, of the size that the same draw found at that budget.
    """
    assert fit.noise_draws is not None
    curves = fit.curves(np.array([budget]))[:, 0]
    deviations = np.resize(fit.noise_draws.deviations_at(budget), len(curves))
    noise = deviations * np.random.default_rng([seed, 1]).standard_normal(len(curves))
    low, _, high = np.percentile(curves * np.exp(noise), LEVELS)
    values = [metric.from_shortfall(float(v)) for v in (low, np.median(curves), high)]
    return Interval(min(values), values[1], max(values))


def make_forecast(analysis: Analysis, budget: float) -> dict[str, Any]:
    """Predictions at a budget for every method and metric with a fit, on the compute-optimal path, as forecast.json keeps them.

    The hash is over the predictions and over the rows of the table that they rest on, so that neither can be changed later
    without being seen.

    Raises:
        ValueError: when the table has runs at that budget, or no method has a fit.
    """
    near = (analysis.frame["flops_budget"] / budget - 1).abs() <= SAME_BUDGET
    trained = analysis.frame[near & analysis.frame["status"].isin(["done", "failed"])]["run_id"].nunique()
    if trained:
        raise ValueError(
            f"the table has {trained} runs at {budget:.3g} FLOPs: a forecast is made before anything is trained; "
            "take a budget without runs"
        )
    predictions, sizes, lacking, rows = [], [], [], {}
    for name in [n for n in FITTED if len(analysis.rows(n))]:
        for method, fit in analysis.fits(name).items():
            if fit.law is None:
                lacking.append(f"{name} of {method}: {fit.missing}")
                continue
            found = predict(fit, METRICS[name], budget)
            predictions.append({"method": method, "metric": name, "value": found.value, "low": found.low, "high": found.high})
            path = analysis.paths(name)[method][0]
            if not path.missing:
                best = path.at(budget)
                sizes.append({"method": method, "metric": name, "num_params": best.value, "low": best.low, "high": best.high})
        rows[name] = sorted(str(run) for run in analysis.fitted_runs(name)["run_id"])
    if not predictions:
        raise ValueError(f"nothing to forecast from: {lacking[0] if lacking else 'no finished run'}")
    used = analysis.frame[analysis.frame["run_id"].isin({run for runs in rows.values() for run in runs})]["flops_budget"]
    content = {
        "budget": budget,
        "protocol": analysis.protocol,
        "fitted_budgets": [float(used.min()), float(used.max())],
        "predictions": predictions,
        "best_sizes": sizes,
        "lacking": lacking,
        "rows": rows,
    }
    return {**content, "sha256": _digest(content, analysis.frame)}


def add_forecast(known: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """What forecast.json holds with one more forecast: budgets ascending, one of the same budget replaced."""
    others = [f for f in known.get("forecasts", ()) if abs(f["budget"] / made["budget"] - 1) > SAME_BUDGET]
    return {"schema": SCHEMA, "forecasts": sorted([*others, made], key=lambda f: f["budget"])}


def _digest(forecast: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """SHA-256 of a forecast and of the table's rows that it names."""
    lines = [json.dumps({k: v for k, v in forecast.items() if k != "sha256"}, sort_keys=True)]
    test = frame[(frame["status"] == "done") & (frame["split"] != "validation")]
    for name, runs in sorted(forecast["rows"].items()):
        used = test[test["run_id"].isin(runs)]
        columns = ["run_id", "ema", "tuned_for", "flops_budget", "seed", name]
        lines += sorted(",".join(map(str, row)) for row in used[columns].itertuples(index=False))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_forecast(forecast: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """What was changed since a forecast was made, as a sentence; empty when its hash still holds for the table."""
    missing = {run for runs in forecast["rows"].values() for run in runs} - set(frame["run_id"])
    if missing:
        return f"{len(missing)} of the runs behind the forecast are not in this table; its hash cannot be checked here"
    if _digest(forecast, frame) != forecast["sha256"]:
        return "the forecast, or a row that it rests on, was changed after it was made"
    return ""


@dataclass(frozen=True, slots=True)
class ForecastScore:
    """How one prediction fared."""

    method: str
    metric: str
    budget: float
    predicted: Interval
    observed: float
    """Mean over the seeds of the best size, taken on the metric's scale of comparison."""
    num_runs: int
    num_inside: int
    """Runs inside the interval, which is that of one run."""
    interval_score: float
    """Mean over runs, on the scale of comparison: the interval's width, and 40 times what a run lies outside it (Gneiting &
    Raftery 2007, equation 43). Smaller is better."""

    @property
    def held(self) -> bool:
        """Whether the observed mean lies inside."""
        return self.predicted.holds(self.observed)


def score_forecast(forecast: Mapping[str, Any], analysis: Analysis) -> list[ForecastScore]:
    """Compare a forecast with the runs at its budget, where there are any.

    Raises:
        ValueError: when the table has another protocol.
    """
    if analysis.protocol not in {"", forecast["protocol"]}:
        raise ValueError(f"the forecast is of protocol {forecast['protocol']}, the table of {analysis.protocol}")
    scores = []
    for said in forecast["predictions"]:
        metric = METRICS[said["metric"]]
        runs = analysis.best_runs(metric.column)
        near = (runs["flops_budget"] / forecast["budget"] - 1).abs() <= SAME_BUDGET
        mine = runs[near & (runs["method"] == said["method"])]
        if mine.empty:
            continue
        interval = Interval(said["low"], said["value"], said["high"])
        values = metric.scaled(mine)
        low, high = (metric.scale_of(end, float(mine["num_samples"].min())) for end in (interval.low, interval.high))
        outside = np.maximum(low - values, 0) + np.maximum(values - high, 0)
        scores.append(
            ForecastScore(
                method=said["method"],
                metric=metric.column,
                budget=forecast["budget"],
                predicted=interval,
                observed=metric.unscaled(float(values.mean())),
                num_runs=len(values),
                num_inside=int((outside == 0).sum()),
                interval_score=float(high - low + 2 / ERROR_RATE * outside.mean()),
            )
        )
    return scores


def forecast_summary(scores: Iterable[ForecastScore]) -> str:
    """The outcome in a sentence."""
    scores = list(scores)
    if not scores:
        return "nothing has been trained at the forecast's budget yet"
    held, inside = sum(s.held for s in scores), sum(s.num_inside for s in scores)
    return (
        f"{held} of {len(scores)} predicted intervals hold the mean over seeds, and {inside} of "
        f"{sum(s.num_runs for s in scores)} runs lie inside theirs"
    )
