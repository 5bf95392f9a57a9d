"""The measures of quality: columns, what measured them, on which scale they compare; the size that stands for a method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from bench.analysis.intervals import Interval
from bench.analysis.laws import Array
from bench.analysis.welch import Sample
from bench.results.table import TUNED

ORDER = ("diffusion", "next-token", "masked-token", "mar")
"""Built-ins come first, in this order, whichever methods a table holds."""
SIZE = ["width", "depth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A column that measures quality."""

    column: str
    label: str
    higher_is_better: bool
    tuned_for: str
    """Metric whose chosen setting is read, and by which sizes are chosen on validation rows."""
    of_images: bool = True
    """Whether it is measured on generated images, and so depends on the sampler's setting."""
    compares: Literal["everywhere", "within a tokenizer", "within a method"] = "everywhere"
    """Which values of a table compare."""
    scale: Literal["log", "logit", "fisher", "raw"] = "log"
    """On which methods compare and intervals are symmetric, so that none leaves the possible range: logarithms of distances, log
    odds of shares, Fisher's z of cosines; raw for an estimator that may be negative."""
    floor_column: str = ""
    """The value that no training passes: that of the autoencoder's reconstructions of real images."""

    @property
    def share(self) -> bool:
        """Whether it is a share of images: fitted as 1 - share."""
        return self.scale == "logit"

    @property
    def error(self) -> str:
        """The column of its standard error at one training seed."""
        return f"{self.column}_se"

    @property
    def effect(self) -> str:
        """What a difference on the scale is called once it is mapped back by `effect_size`."""
        return {"log": "ratio", "logit": "odds ratio", "fisher": "difference of z", "raw": "difference"}[self.scale]

    def effect_size(self, difference: float) -> float:
        """A difference on the scale as it is printed."""
        return math.exp(difference) if self.scale in ("log", "logit") else difference

    def scaled(self, rows: pd.DataFrame) -> Array:
        """The values (n,) on the scale of comparison; a share of N images has half an image added on both sides (Jeffreys)."""
        values = rows[self.column].to_numpy(float)
        if self.scale == "raw":
            return values
        if self.scale == "fisher":
            return np.asarray(np.arctanh(values))
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.scale == "log":
                return np.asarray(np.log(values))
            num = rows["num_samples"].to_numpy(float)
            return np.asarray(np.log((values * num + 0.5) / ((1 - values) * num + 0.5)))

    def scale_of(self, value: float, num: float) -> float:
        """One value on the scale of comparison; a share of 0 or 1 counts as half an image of num."""
        if self.share:
            half = 0.5 / (num + 1)
            return float(logit(min(max(value, half), 1 - half)))
        scales: dict[str, Callable[[float], float]] = {"log": np.log, "fisher": np.arctanh, "raw": float}
        return float(scales[self.scale](value))

    def unscaled(self, value: float) -> float:
        """Inverse of `scaled`, for one value."""
        return float({"log": np.exp, "logit": expit, "fisher": np.tanh, "raw": float}[self.scale](value))

    def sample(self, rows: pd.DataFrame) -> Sample:
        """The rows' values on the scale, with the error that a single one has at its seed."""
        values = rows[self.column].to_numpy(float)
        if self.share:
            num = rows["num_samples"].to_numpy(float)
            variance = 1 / (values * num + 0.5) + 1 / ((1 - values) * num + 0.5)
        else:
            error = rows[self.error].to_numpy(float) if self.error in rows else np.zeros(len(rows))
            slope = {"log": values, "fisher": 1 - values**2, "raw": 1.0}[self.scale]
            with np.errstate(divide="ignore", invalid="ignore"):
                variance = np.nan_to_num(error / slope, posinf=0.0, neginf=0.0) ** 2
        return Sample(self.scaled(rows), float(np.sqrt(variance.mean())))

    def shortfall(self, rows: pd.DataFrame) -> Array:
        """A quantity that falls to 0 (or a floor) as quality grows, (n,): the metric itself, or 1 - share with Jeffreys' half."""
        return np.asarray(expit(-self.scaled(rows))) if self.share else rows[self.column].to_numpy(float)

    def from_shortfall(self, value: float) -> float:
        """The metric that a shortfall stands for; no share is below 0."""
        return max(1 - value, 0.0) if self.share else value

    def floor(self, rows: pd.DataFrame) -> Interval | None:
        """The measured floor of the shortfall with its error, from the rows of one method; None where it was not measured.

        The table has no error of a floor. For a distance it is the larger of the metric's own relative error and of the step from
        the floor of real images to that of the autoencoder; for a share it is binomial.
        """
        if not self.floor_column or self.floor_column not in rows:
            return None
        measured = rows.dropna(subset=[self.floor_column])
        if measured.empty:
            return None
        value = float(measured[self.floor_column].iloc[0])
        if self.share:
            num = float(measured["num_samples"].iloc[0])
            value = ((1 - value) * num + 0.5) / (num + 1)
            error = math.sqrt((1 - value) / (value * (num + 1)))
        else:
            if value <= 0:
                return None
            error = float((measured[self.error] / measured[self.column]).median())
            error = 0.0 if math.isnan(error) else error
            real = float(measured[f"{self.column}_floor"].iloc[0]) if f"{self.column}_floor" in measured else math.nan
            error = max(error, abs(math.log(value / real)) if real > 0 else 0.0)
        return Interval(value * math.exp(-1.96 * error), value, value * math.exp(1.96 * error))


METRICS = {
    metric.column: metric
    for metric in (
        Metric(column="fid", label="FID", higher_is_better=False, tuned_for="fid", floor_column="fid_autoencoder"),
        Metric(column="kid", label="KID", higher_is_better=False, tuned_for="fid", scale="raw"),
        Metric(
            column="prompt_accuracy",
            label="prompt accuracy",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
            scale="logit",
            floor_column="prompt_accuracy_ceiling",
        ),
        Metric(
            column="prompt_accuracy_heldout",
            label="prompt accuracy, held-out pairs",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
            scale="logit",
        ),
        Metric(
            column="clip_score",
            label="CLIP score (cosine)",
            higher_is_better=True,
            tuned_for="prompt_accuracy",
            scale="fisher",
        ),
        Metric(column="fd_dinov2", label="Frechet distance", higher_is_better=False, tuned_for="fid"),
        Metric(
            column="validation_loss",
            label="validation loss",
            higher_is_better=False,
            tuned_for="validation_loss",
            of_images=False,
            compares="within a method",
        ),
        Metric(
            column="validation_bits",
            label="validation bits per image",
            higher_is_better=False,
            tuned_for="validation_bits",
            of_images=False,
            compares="within a tokenizer",
        ),
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
    clips = [(start, "suite's CLIP") for start in ("shapes-clip", "sprites-clip")]
    for start, text in (*clips, ("inception-v3", "Inception-v3"), ("exact verifier", "exact verifier")):
        if name.startswith(start):
            return text
    return "suite's classifier" if "-classifier-" in name else name.split("@")[0].split(",")[0]


FITTED = ("validation_loss", "fid", "kid", "prompt_accuracy")


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Methods of a table, built-ins first."""
    return in_order(frame["method"])


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once: the papers' four first, the others by the alphabet."""
    found = set(names)
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def criterion(validation: pd.DataFrame, metric: Metric) -> Metric | None:
    """The metric that chooses sizes on validation rows: the one that settings are chosen for, or the next that was measured."""
    for name in (metric.tuned_for, *TUNED):
        if name in METRICS and name in validation and validation[name].notna().any():
            return METRICS[name]
    return None


def validation_quality(validation: pd.DataFrame, judge: Metric) -> pd.DataFrame:
    """Each run's value at its best setting on validation rows, on the judge's scale and better when larger: column quality."""
    sign = 1.0 if judge.higher_is_better else -1.0
    rows = validation.assign(quality=sign * judge.scaled(validation)).dropna(subset=["quality"])
    return rows.groupby(["run_id", "method", "flops_budget", *SIZE], as_index=False)["quality"].max()


def best_per_budget(rows: pd.DataFrame, metric: Metric, validation: pd.DataFrame | None = None) -> pd.DataFrame:
    """For each method and budget, the best size: columns value, error, num_seeds, num_params, images_seen.

    The size is the one whose seed mean is best on the validation rows, and what is reported comes from `rows`, so that no choice
    is made on what it reports. Without validation rows of a run the rows choose for themselves.
    """
    keys = ["method", "flops_budget", *SIZE]
    rows = rows.dropna(subset=[metric.column])
    if validation is not None:  # runs that `rows` leaves out, such as those at another learning rate, do not choose
        validation = validation[validation["run_id"].isin(rows["run_id"])]
    cells = rows.groupby(keys, as_index=False).agg(
        value=(metric.column, "mean"),
        error=(metric.error, "mean"),
        num_seeds=("seed", "nunique"),
        num_params=("num_params", "first"),
        images_seen=("images_seen", "mean"),
    )
    judge = None if validation is None else criterion(validation, metric)
    if validation is not None and judge is not None:
        quality = validation_quality(validation, judge).groupby(keys, as_index=False)["quality"].mean()
        cells = cells.merge(quality, on=keys, how="left")
    else:
        sign = 1.0 if metric.higher_is_better else -1.0
        means = rows.assign(quality=sign * metric.scaled(rows)).groupby(keys, as_index=False)["quality"].mean()
        cells = cells.merge(means, on=keys, how="left")
    ranked = cells.sort_values("quality", ascending=False, kind="stable", na_position="last")
    best = ranked.groupby(["method", "flops_budget"], as_index=False).first()
    return best.sort_values(["method", "flops_budget"]).drop(columns="quality")
