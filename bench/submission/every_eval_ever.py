"""A method of a submission as a record of Every Eval Ever (evaleval/every_eval_ever, eval.schema.json 0.2.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pandas as pd

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.config.data import ImageData
from bench.results.columns import COLUMNS
from bench.submission.submission import Submission
from bench.submission.verdict import Verdict

SCHEMA = "0.2.2"
LEVEL = 0.95
MODEL = ("paradigm", "tokenizer", "width", "depth", "num_params", "flops_budget", "flop_rule", "dtype")
SAMPLER = ("sampler_steps", "guidance", "sampler_options", "flops_per_sample", "num_samples", "sample_seed")


def evaluation_record(submission: Submission, verdict: Verdict, analysis: Analysis, method: str) -> dict[str, Any]:
    """All metrics of a method at every budget, each the mean over seeds with its interval, as JSON values.

    Args:
        analysis: of the submission's own table.
    """
    rows = analysis.frame[analysis.frame["method"] == method]
    stamp = str(rows["timestamp"].dropna().max())
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"paradigm-bench/{submission.name}/{method}/{stamp}",
        "evaluation_timestamp": stamp,
        "retrieved_timestamp": str(round(datetime.fromisoformat(stamp).timestamp())),
        "source_metadata": {
            "source_name": submission.name,
            "source_type": "evaluation_run",
            "source_organization_name": submission.name,
            "evaluator_relationship": "first_party",
            "additional_details": {"division": verdict.division, "protocol": str(rows["protocol"].dropna().iloc[0])},
        },
        "eval_library": {"name": "paradigm-bench", "version": _version(submission)},
        "model_info": {
            "name": method,
            "id": f"{submission.name}/{method}",
            "additional_details": {**_texts(rows, ("paradigm", "tokenizer", "dtype")), "commit": _commit(submission, rows)},
        },
        "evaluation_results": list(_results(submission, analysis, method)),
    }


def _results(submission: Submission, analysis: Analysis, method: str) -> Iterator[dict[str, Any]]:
    data = submission.identity.data
    world = data.name if isinstance(data, ImageData) else data
    for budget in analysis.budgets:
        for name, metric in METRICS.items():
            if not len(analysis.rows(name)):
                continue
            runs = analysis.best_runs(name)
            runs = runs[(runs["method"] == method) & (runs["flops_budget"] == budget)]
            if runs.empty:
                continue
            bounds = {"score_type": "continuous", "min_score": 0.0, "max_score": 1.0} if metric.share else {}
            identity = submission.runs[runs["run_id"].iloc[0]].data
            yield {
                "evaluation_result_id": f"{method}/{budget:.3g}/{name}",
                "evaluation_name": f"{world} at {budget:.3g} training FLOPs",
                "source_data": {"dataset_name": world, "source_type": "other", "source_id": identity},
                "metric_config": {
                    "evaluation_description": COLUMNS[name],
                    "metric_id": f"paradigm-bench.{name}",
                    "metric_name": metric.label,
                    "metric_parameters": {"training_flops": float(budget), "sampler_chosen_for": metric.tuned_for},
                    "lower_is_better": not metric.higher_is_better,
                    **bounds,
                },
                "score_details": {
                    "score": float(runs[name].mean()),
                    "uncertainty": _uncertainty(analysis, name, budget, method, runs),
                },
                "generation_config": {
                    "generation_args": _temperature(runs),
                    "additional_details": _texts(runs, (*MODEL, *SAMPLER)),
                },
            }


def _uncertainty(analysis: Analysis, name: str, budget: float, method: str, runs: pd.DataFrame) -> dict[str, Any]:
    """Over seeds where there are two or more; else the error that one run has."""
    found: dict[str, Any] = {"num_samples": len(runs)}
    interval = analysis.mean(name, budget, method)
    if interval is not None:
        ends = {"lower": interval.low, "upper": interval.high}
        return found | {"confidence_interval": {**ends, "confidence_level": LEVEL, "method": "t over training seeds"}}
    error = METRICS[name].error
    value = float(runs[error].iloc[0]) if error in runs else math.nan
    if math.isfinite(value):
        found["standard_error"] = {"value": value, "method": f"of one training seed: {COLUMNS[error]}"}
    return found


def _temperature(runs: pd.DataFrame) -> dict[str, float]:
    """The sampling temperature, where all seeds chose the same."""
    found = runs["temperature"].dropna().unique()
    return {"temperature": float(found[0])} if len(found) == 1 else {}


def _texts(rows: pd.DataFrame, columns: tuple[str, ...]) -> dict[str, str]:
    """The values of columns as text, all of them where rows differ."""
    found = {name: sorted({str(value) for value in rows[name].dropna()}) for name in columns}
    return {name: ", ".join(values) for name, values in found.items() if values}


def _version(submission: Submission) -> str:
    return str(submission.about("packages").get("paradigm-bench", "unknown"))


def _commit(submission: Submission, rows: pd.DataFrame) -> str:
    known = submission.about("plugins").get(str(rows["paradigm"].iloc[0]))
    return str(known.get("commit", "")) if isinstance(known, dict) else ""
