"""How anything is timed here: warm, interleaved, several times, with its spread.

Seconds on a shared machine mean little by themselves, so what is compared runs in turn within one process, and a ratio is the
median of the ratios of each round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

REPEATS = 9
SHOWN = "part subject size tokens at batch dtype quantity value low high unit goal reached".split()
"""Columns that are printed."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """From at least two values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call, the GPU's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rounds(calls: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Seconds of each call in each round, after a round that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            spent = seconds(call)
            if number:
                taken[name].append(spent)
    return taken


def ratio(over: list[float], under: list[float], factor: float = 1.0) -> Spread:
    """factor * over / under, round by round."""
    return Spread.of([factor * a / b for a, b in zip(over, under, strict=True)])


def row(
    part: str, subject: str, quantity: str, value: Spread | float | None, unit: str, goal: str = "", **place: Any
) -> dict[str, Any]:
    """One line of the table; a goal such as "<= 1.03" is compared with the median."""
    spread = value if isinstance(value, Spread) else None
    number = value.median if isinstance(value, Spread) else value
    reached: bool | None = None
    if goal and number is not None:
        sign, limit = goal.split()
        reached = number >= float(limit) if sign == ">=" else number <= float(limit)
    return {
        "part": part,
        "subject": subject,
        **place,
        "quantity": quantity,
        "value": number,
        "low": spread.low if spread else None,
        "high": spread.high if spread else None,
        "unit": unit,
        "goal": goal or None,
        "reached": reached,
    }


def as_text(frame: pd.DataFrame) -> str:
    """Rows for a terminal, without columns that are empty."""
    shown = frame.reindex(columns=SHOWN)
    for name in ("value", "low", "high"):
        shown[name] = shown[name].map("{:.4g}".format, na_action="ignore")
    return str(shown.dropna(axis=1, how="all").astype(object).fillna("").to_string(index=False))
