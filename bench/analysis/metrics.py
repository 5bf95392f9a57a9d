"""The measures of quality: their columns, what measured them, and the rows and sizes that stand for a method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.laws import Array

ORDER = ("diffusion", "next-token", "masked-token", "mar")
"""Built-ins come first, in this order, whichever methods a table holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A column that measures quality."""

    column: str
    label: str
    higher_is_better: bool
    tuned_for: str
    """Metric whose chosen setting is read."""
    share: bool = False
    """Whether it is a share of images: fitted as 1 - share, and compared by differences instead of ratios."""

    @property
    def error(self) -> str:
        """The column of its standard error at one training seed."""
        return f"{self.column}_se"

    def shortfall(self, rows: pd.DataFrame) -> Array:
        """A quantity that falls to 0 (or a floor) as quality grows, (n,): the metric itself, or 1 - share.

        A share of all N images counts as (N + 0.5) / (N + 1), so that its logarithm exists (Jeffreys' rule).
        """
        values = rows[self.column].to_numpy(float)
        if not self.share:
            return values
        num = rows["num_samples"].to_numpy(float)
        return np.asarray(1 - (values * num + 0.5) / (num + 1))


METRICS = {
    metric.column: metric
    for metric in (
        Metric(column="fid", label="FID", higher_is_better=False, tuned_for="fid"),
        Metric(column="kid", label="KID", higher_is_better=False, tuned_for="fid"),
        Metric(
            column="prompt_accuracy",
            label="prompt accuracy",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
            share=True,
        ),
        Metric(
            column="prompt_accuracy_heldout",
            label="prompt accuracy, held-out pairs",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
            share=True,
        ),
        Metric(
            column="clip_score",
            label="CLIP score (cosine)",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
        ),
        Metric(column="fd_dinov2", label="Frechet distance", higher_is_better=False, tuned_for="fid"),
    )
}
JUDGES = {
    "fid": "fid_network",
    "kid": "fid_network",
    "prompt_accuracy": "prompt_judge",
    "prompt_accuracy_heldout": "prompt_judge",
    "clip_score": "clip_checkpoint",
    "fd_dinov2": "dinov2_network",
}
"""The column that names what a metric was measured with."""


def judge_text(name: str) -> str:
    """What measured a metric, for an axis: its name without the hash of its weights."""
    for start, text in (("shapes-clip", "suite's CLIP"), ("inception-v3", "Inception-v3"), ("exact verifier", "exact verifier")):
        if name.startswith(start):
            return text
    return "suite's classifier" if "-classifier-" in name else name.split("@")[0].split(",")[0]


FITTED = ("fid", "kid", "prompt_accuracy")


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Methods of a table, built-ins first."""
    found = list(dict.fromkeys(frame["method"]))
    return [m for m in ORDER if m in found] + sorted(m for m in found if m not in ORDER)


def best_per_budget(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """For each method and budget, the size whose seed mean is best: columns value, error, num_seeds, num_params, images_seen."""
    cells = (
        rows.dropna(subset=[metric.column])
        .groupby(["method", "flops_budget", "width", "depth"], as_index=False)
        .agg(
            value=(metric.column, "mean"),
            error=(metric.error, "mean"),
            num_seeds=("seed", "nunique"),
            num_params=("num_params", "first"),
            images_seen=("images_seen", "mean"),
        )
    )
    ranked = cells.sort_values("value", ascending=not metric.higher_is_better, kind="stable")
    return ranked.groupby(["method", "flops_budget"], as_index=False).first().sort_values(["method", "flops_budget"])
