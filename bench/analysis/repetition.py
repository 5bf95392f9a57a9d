"""What seeing the same images again costs: the validation loss at equal compute, with fewer and fewer different images.

Methods that differ in their number of training images alone form a group: one paradigm with one tokenizer, size and budget. The
losses of two paradigms do not compare; the ratios of each to its own without repetition do.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from bench.analysis.comparison import Analysis
from bench.analysis.intervals import Interval
from bench.analysis.metrics import SIZE
from bench.analysis.welch import Sample, mean_interval

GROUP = ["paradigm", "tokenizer", *SIZE, "flops_budget"]
LEAST_COUNTS = 3
"""Numbers of different images from which there is a curve."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """A paradigm that saw its images several times."""

    paradigm: str
    budget: float
    epochs: float
    num_images: int
    """Different images."""
    ratio: float
    """Validation loss over that at the fewest epochs, the same seeds on both sides: geometric mean."""
    interval: Interval | None
    """Of the ratio over seeds, by Student's t; None for one seed."""


def repetition(analysis: Analysis) -> list[Repeated]:
    """Every group with enough numbers of images, by budget and epochs; empty for a sweep in which they are one."""
    rows = analysis.rows("validation_loss").dropna(subset=["epochs", "validation_loss"])
    rows = rows[(rows["epochs"] > 0) & (rows["validation_loss"] > 0)]
    rows = rows.assign(num_images=(rows["images_seen"] / rows["epochs"]).map(_three_digits))
    found = []
    for (paradigm, *_, budget), group in rows.groupby(GROUP):
        counts = sorted(group["num_images"].unique(), reverse=True)
        if len(counts) < LEAST_COUNTS:
            continue
        losses = group.pivot_table(index="seed", columns="num_images", values="validation_loss")
        for num in counts:
            both = losses[[counts[0], num]].dropna().to_numpy(float)
            ratios = Sample(np.log(both[:, -1] / both[:, 0]))
            interval = mean_interval(ratios)
            epochs = float(group[group["num_images"] == num]["epochs"].mean())
            found.append(
                Repeated(
                    paradigm=str(paradigm),
                    budget=float(budget),
                    epochs=epochs,
                    num_images=int(num),
                    ratio=math.exp(ratios.mean),
                    interval=None if interval is None else interval.map(math.exp),
                )
            )
    return sorted(found, key=lambda each: (each.budget, each.paradigm, each.epochs))


def _three_digits(value: float) -> float:
    """A number of images that was divided out of rounded epochs."""
    return float(f"{value:.3g}")


def tolerated(curve: list[Repeated], harm: float) -> float:
    """Epochs at which one paradigm's loss at one budget is `harm` times that without repetition, on straight lines in log epochs
    and log loss between those that were tried; infinity where it never is."""
    for before, after in itertools.pairwise(sorted(curve, key=lambda each: each.epochs)):
        if before.ratio < harm <= after.ratio:
            share = math.log(harm / before.ratio) / math.log(after.ratio / before.ratio)
            return before.epochs * (after.epochs / before.epochs) ** share
    return math.inf
