"""The laws by which a budget chooses models, batch, rates, images and evaluation: one JSON file per kind of data in bench/laws.

Every number there has its interval, the range in which it was measured, and its source. A number that is measured anew replaces
the old one in that file and nowhere else; a method without numbers of its own takes those of "common".
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.config.experiment import Evaluation
from bench.config.size import Size

FOLDER = Path(__file__).parent.parent / "laws"
COMMON = "common"
BETA2_BATCH = 32
"""Of the default experiment, whose beta2 the law states."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What laws say at one place."""

    value: float
    low: float
    high: float
    extrapolated: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """value * (x / at) ** exponent."""

    value: float
    at: float
    exponent: float
    factor: float
    """The interval inside the range: from value / factor to value * factor."""
    exponent_error: float
    """Half the interval of the exponent, by which the interval widens outside the range."""
    low: float
    high: float
    """The range of x in which it was measured."""
    source: str

    def __call__(self, x: float) -> Estimate:
        """The law at x, beyond its range with an interval that widens with the distance."""
        value = self.value * (x / self.at) ** self.exponent
        beyond = max(self.low / x, x / self.high, 1.0)
        factor = self.factor * beyond**self.exponent_error
        return Estimate(value, value / factor, value * factor, beyond > 1, self.source)


def estimate(laws: tuple[PowerLaw, ...], x: float) -> Estimate:
    """Laws of ascending ranges at x: the one whose range holds x, the line between two neighbors' ends, or the nearest."""
    for below, above in itertools.pairwise(laws):
        if below.high < x < above.low:
            share = math.log(x / below.high) / math.log(above.low / below.high)
            first, last = below(below.high), above(above.low)
            value = first.value ** (1 - share) * last.value**share
            near = min(x / below.high, above.low / x)
            error = max(below.exponent_error, above.exponent_error)
            factor = below.factor ** (1 - share) * above.factor**share * near**error
            return Estimate(value, value / factor, value * factor, True, f"between {below.source} and {above.source}")
    nearest = min(laws, key=lambda law: max(law.low / x, x / law.high))
    return nearest(x)


@dataclass(frozen=True, kw_only=True)
class BaseRate:
    """A peak rate and where it was found."""

    value: float
    width: int
    depth: int
    batch: int
    images: float
    """Of the run at which it was found."""
    widths: tuple[int, int]
    depths: tuple[int, int]
    horizons: tuple[float, float]
    """The widths, the depths, and the images of a run, between which a rate carried from here was compared with searched ones and
    lost little."""
    search: tuple[float, ...] = (1.0,)
    """Multiples of the carried rate that are trained at other depths: several where carrying was not shown to hold."""
    source: str

    def factors(self, size: Size) -> tuple[float, ...]:
        """Multiples of the carried rate to train at a size."""
        return (1.0,) if self.depths[0] <= size.depth <= self.depths[1] else self.search


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number with its interval and source."""

    value: float
    low: float
    high: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Level:
    """What holds from a budget on."""

    budget: float
    """The least BUDGET."""
    world: str = ""
    evaluation: Evaluation | None = None


@dataclass(frozen=True, kw_only=True)
class Laws:
    """All laws of one kind of data."""

    kind: Literal["shapes", "images"]
    images_per_parameter: Mapping[str, tuple[PowerLaw, ...]]
    """Training images over parameters at the best size of a budget, as functions of the budget; by method."""
    batch: PowerLaw
    """Images per step as a function of the images of a run."""
    base_rate: Mapping[str, BaseRate]
    """By method."""
    horizon: Number
    """The rate falls as (images of a run) to this power, at a fixed batch."""
    batch_rate: Number
    """The rate rises as the batch to this power."""
    timescale: Number
    """Of AdamW's average of the weights, batch / (rate x weight decay x images), in runs."""
    beta2: Number
    """AdamW's at a batch of BETA2_BATCH images; its half-life in images stays, between `low` and `high`."""
    warmup: Number
    """Share of a trunk's shortest rung."""
    epochs: Number
    """Most of a procedural world."""
    bf16_width: Number
    """Narrower models train in fp32."""
    worlds: tuple[Level, ...] = ()
    worlds_source: str = ""
    evaluations: tuple[Level, ...]
    evaluations_source: str = ""

    def images_law(self, paradigm: str, budget: float) -> Estimate:
        """Images per parameter of a paradigm's best size."""
        return estimate(self.images_per_parameter.get(paradigm, self.images_per_parameter[COMMON]), budget)

    def rate(self, paradigm: str) -> BaseRate:
        """The paradigm's own rate, or the common one."""
        return self.base_rate.get(paradigm, self.base_rate[COMMON])

    def world(self, budget: float) -> str:
        """The procedural world of a budget."""
        return [level.world for level in self.worlds if level.budget <= budget][-1]

    def evaluation(self, budget: float) -> Evaluation:
        """What is measured on each model of a sweep with this top budget."""
        found = [level.evaluation for level in self.evaluations if level.budget <= budget][-1]
        assert found is not None
        return found


def _base_rate(content: dict[str, Any]) -> BaseRate:
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    return BaseRate(**given)


@cache
def load_laws(kind: Literal["shapes", "images"]) -> Laws:
    """The laws of a kind of data, as shipped."""
    return parse_laws(json.loads((FOLDER / f"{kind}.json").read_text()))


def parse_laws(content: dict[str, Any]) -> Laws:
    """Laws from their JSON."""
    powers = content["images_per_parameter"]
    evaluations = [(level["budget"], dict(level["evaluation"])) for level in content["evaluations"]]
    for _, sizes in evaluations:
        if "throughput_batches" in sizes:
            sizes["throughput_batches"] = tuple(sizes["throughput_batches"])
    fields = {"value", "low", "high", "source"}
    numbers = {name: Number(**value) for name, value in content.items() if isinstance(value, dict) and set(value) == fields}
    return Laws(
        **{
            **content,
            **numbers,
            "images_per_parameter": {name: tuple(PowerLaw(**law) for law in laws) for name, laws in powers.items()},
            "batch": PowerLaw(**content["batch"]),
            "base_rate": {name: _base_rate(rate) for name, rate in content["base_rate"].items()},
            "worlds": tuple(Level(**level) for level in content.get("worlds", ())),
            "evaluations": tuple(Level(budget=least, evaluation=Evaluation(**sizes)) for least, sizes in evaluations),
        }
    )
