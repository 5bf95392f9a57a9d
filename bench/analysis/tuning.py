"""What a search of learning rates found: a curve per method and criterion, winners at an edge, and what another rate costs.

A rate is chosen once per criterion (prompt accuracy, FID), as a sampler's setting is, on validation rows alone.
"""

from __future__ import annotations

import pandas as pd

from bench.analysis.metrics import METRICS, Metric, methods_of

CRITERIA = ("prompt_accuracy", "fid")
"""Metrics that rates and settings are chosen for."""
CELL = ["method", "width", "depth", "flops_budget"]
"""What is searched by itself."""
SETTING = ("sampler_steps", "guidance", "temperature")


def _best_settings(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Of each run with averaged weights, the validation row that is best for a metric."""
    rows = frame[(frame["status"] == "done") & (frame["split"] == "validation") & frame[metric.column].notna()]
    ordered = rows.sort_values(metric.column, ascending=not metric.higher_is_better, kind="stable")
    return ordered.drop_duplicates("run_id").sort_index()


def trials(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per trained run and criterion of a results table: method, width, depth, flops_budget, criterion, learning_rate,
    seed, and the value at the sampler setting that is best for the criterion on validation conditions."""
    parts = []
    for criterion in CRITERIA:
        rows = _best_settings(frame, METRICS[criterion])
        part = rows[[*CELL, "learning_rate", "seed"]].assign(value=rows[criterion].astype(float))
        part.insert(len(CELL), "criterion", criterion)
        parts.append(part)
    found = pd.concat(parts, ignore_index=True)
    for name, order in (("method", methods_of(frame)), ("criterion", CRITERIA)):
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


def setting_edges(frame: pd.DataFrame) -> pd.DataFrame:
    """How often runs choose the lowest or highest value tried of a sampler setting: columns method, criterion, setting, lowest,
    highest, share_lowest, share_highest, num_runs; settings of which one value was tried are left out."""
    rows = []
    for criterion in CRITERIA:
        chosen = _best_settings(frame, METRICS[criterion])
        for method in methods_of(frame):
            tried = frame[(frame["method"] == method) & (frame["split"] == "validation")]
            mine = chosen[chosen["method"] == method]
            for setting in SETTING:
                low, high = tried[setting].min(), tried[setting].max()
                if len(mine) and low < high:
                    shares = (float((mine[setting] == end).mean()) for end in (low, high))
                    rows.append((method, criterion, setting, low, high, *shares, len(mine)))
    columns = ["method", "criterion", "setting", "lowest", "highest", "share_lowest", "share_highest", "num_runs"]
    return pd.DataFrame(rows, columns=columns)


def search_notes(curves: pd.DataFrame, rates: dict[tuple[str, int], float]) -> list[str]:
    """One sentence for each winner at an edge, and for each rate in use (by method and width) that loses to the winner.

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
        for _, used in curve[(curve["learning_rate"] == rates.get((method, width))) & ~curve["is_best"]].iterrows():
            notes.append(
                f"{method}: learning rate {used['learning_rate']:g} is not the best by {label}: {used['value']:.3g}, "
                f"and {best['value']:.3g} at {best['learning_rate']:g}"
            )
    return notes
