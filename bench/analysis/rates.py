"""What a search of learning rates found: a curve per method and criterion, winners at an edge, and what another rate costs.

A rate is chosen once per criterion (prompt accuracy, FID), as a sampler's setting is, on validation rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.analysis.metrics import METRICS, Metric, methods_of
from bench.results.table import TUNED

CELL = ["method", "width", "depth", "flops_budget"]
"""What is searched by itself."""


def _best_settings(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Of each run with averaged weights, the validation row that is best for a metric."""
    finite = np.isfinite(frame[metric.column].astype(float))
    rows = frame[(frame["status"] == "done") & (frame["split"] == "validation") & finite]
    ordered = rows.sort_values(metric.column, ascending=not metric.higher_is_better, kind="stable")
    return ordered.drop_duplicates("run_id").sort_index()


def trials(frame: pd.DataFrame, criteria: Sequence[str] = TUNED) -> pd.DataFrame:
    """One row per trained run and criterion of a results table: method, width, depth, flops_budget, criterion, learning_rate,
    seed, and the value at the sampler setting that is best for the criterion on validation conditions."""
    parts = []
    for criterion in criteria:
        rows = _best_settings(frame, METRICS[criterion])
        part = rows[[*CELL, "learning_rate", "seed"]].assign(value=rows[criterion].astype(float))
        part.insert(len(CELL), "criterion", criterion)
        parts.append(part)
    found = pd.concat(parts, ignore_index=True)
    for name, order in (("method", methods_of(frame)), ("criterion", criteria)):
        found[name] = pd.Categorical(found[name], order)
    found = found.sort_values([*CELL, "criterion", "learning_rate", "seed"], ignore_index=True)
    return found.astype({"method": str, "criterion": str})


def learning_rate_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per method, size, budget, criterion and learning rate of a results table in which several rates were tried.

    Columns: method, width, depth, flops_budget, criterion, learning_rate; value (mean over seeds, each at its best sampler
    setting) and num_seeds; is_best, for the one winner; at_edge, for a winner that is the lowest or the highest rate tried, so
    that the best may lie outside; num_rates; regret, what the rate loses to the winner: a difference of shares, or a ratio
    of distances less 1. The regret of the winner by one criterion in the curve of the other is what one rate for both costs.
    """
    keys = [*CELL, "criterion"]
    means = trials(frame).groupby([*keys, "learning_rate"], sort=False)["value"].agg(value="mean", num_seeds="size").reset_index()
    parts = []
    for _, curve in means.groupby(keys, sort=False):
        if len(curve) < 2:
            continue
        metric = METRICS[str(curve["criterion"].iloc[0])]
        best = curve["value"].idxmax() if metric.higher_is_better else curve["value"].idxmin()
        ends = {curve["learning_rate"].min(), curve["learning_rate"].max()}
        winner = curve.index == best
        top = curve.loc[best, "value"]
        lost = top - curve["value"] if metric.share else curve["value"] / top - 1
        edge = winner & curve["learning_rate"].isin(ends)
        parts.append(curve.assign(is_best=winner, at_edge=edge, num_rates=len(curve), regret=lost))
    columns = [*keys, "learning_rate", "value", "num_seeds", "is_best", "at_edge", "num_rates", "regret"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def at_best_rates(rows: pd.DataFrame, frame: pd.DataFrame, criterion: str) -> pd.DataFrame:
    """Rows of a results table less those of runs whose learning rate another one beats on validation rows, by the mean over
    seeds, at the same method, size and budget; all rows where each has one rate."""
    if (frame.groupby(CELL)["learning_rate"].nunique() <= 1).all():
        return rows
    curves = learning_rate_curves(frame)
    target = next((name for name in (criterion, *TUNED) if name in set(curves["criterion"])), criterion)
    beaten = curves[(curves["criterion"] == target) & ~curves["is_best"]]
    keys = [*CELL, "learning_rate"]
    return rows[~pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(beaten[keys]))]


def search_notes(curves: pd.DataFrame, rates: dict[tuple[str, int], tuple[float, ...]]) -> list[str]:
    """One sentence for each winner at an edge, and for each method and width whose rates in use lose to the winner.

    Args:
        curves: what `learning_rate_curves` gives for a search.
        rates: in use in the experiment that was searched for.
    """
    notes = []
    for (method, width, _, _, criterion), curve in curves.groupby([*CELL, "criterion"], sort=False):
        best, label = curve[curve["is_best"]].iloc[0], METRICS[criterion].label
        if best["at_edge"]:
            end = "lowest" if best["learning_rate"] == curve["learning_rate"].min() else "highest"
            rate = f"{best['learning_rate']:g}"
            notes.append(f"{method}: the best learning rate by {label}, {rate}, is the {end} of {len(curve)} tried")
        in_use = curve[curve["learning_rate"].isin(rates.get((method, width), ()))]
        if len(in_use) and not in_use["is_best"].any():
            used = in_use.loc[in_use["regret"].idxmin()]
            notes.append(
                f"{method}: learning rate {used['learning_rate']:g} is not the best by {label}: {used['value']:.3g}, "
                f"and {best['value']:.3g} at {best['learning_rate']:g}"
            )
    return notes
