"""The recipe of a trunk: batch, rate, weight decay, warm-up and beta2 from the laws and the images that it sees.

A trunk serves several rungs with one batch and one rate, chosen at the geometric middle of its rungs. Where carrying a rate was
not shown to hold, there is a trunk for each of several rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bench.config.experiment import Method, Recipe
from bench.config.ladder import Ladder
from bench.config.size import Size
from bench.plan.laws import BETA2_BATCH, BaseRate, Laws

LEAST_STEPS, MOST_STEPS = 500, 10**6
"""Of a run: fewer steps are mostly warm-up and cooldown, more are not done by any published recipe."""
LEAST_BATCH = 8
FIXED = "fixed by the experiment"


@dataclass(frozen=True, kw_only=True)
class TrunkRecipe:
    """A trunk's recipe and peak rate, and which of its choices lie outside the laws' ranges."""

    recipe: Recipe
    learning_rate: float
    extrapolated: tuple[str, ...]


def trunk_recipes(
    laws: Laws, ladder: Ladder, base: Recipe, method: Method, size: Size, least_images: float, most_images: float
) -> list[TrunkRecipe]:
    """The recipes of a method at a size, for rungs between so many images: one per rate, several where carrying was not shown
    to hold.

    Args:
        base: what the laws do not decide.
    """
    images = math.sqrt(least_images * most_images)
    batch = ladder.batch_size or _batch(laws, images, least_images, most_images)
    found = base_rate(laws, method)
    carried = carried_rate(laws, found, size, base.completep_base, batch, images)
    warmup = max(1, round(laws.warmup.value * least_images / batch)) if ladder.warmup_steps is None else ladder.warmup_steps
    beta2 = min(max(laws.beta2.value ** (batch / BETA2_BATCH), laws.beta2.low), laws.beta2.high)
    extrapolated = []
    if ladder.batch_size is None and laws.batch(images).extrapolated:
        extrapolated.append("batch_size")
    measured = ((size.width, found.widths), (size.depth, found.depths), (images, found.horizons))
    if not all(low <= value <= high for value, (low, high) in measured):
        extrapolated.append("learning_rate")
    recipes = []
    for factor in found.factors(size):
        rate = _rounded(factor * carried, 3)
        decay = batch / (rate * laws.timescale.value * images) if ladder.weight_decay is None else ladder.weight_decay
        recipe = replace(
            base,
            batch_size=batch,
            warmup_steps=warmup,
            weight_decay=_rounded(decay, 2),
            betas=(base.betas[0], _rounded(beta2, 5)),
            precision=ladder.precision or ("bf16" if size.width >= laws.bf16_width.value else "fp32"),
        )
        recipes.append(TrunkRecipe(recipe=recipe, learning_rate=rate, extrapolated=tuple(extrapolated)))
    return recipes


def base_rate(laws: Laws, method: Method) -> BaseRate:
    """Where a method's rate was found; an experiment's own rate replaces the value.

    Raises:
        ValueError: when the method gives several.
    """
    found = laws.rate(method.paradigm)
    if not method.learning_rates:
        return found
    given = method.learning_rates[0]
    if len(method.learning_rates) > 1 or isinstance(given, tuple):
        raise ValueError(
            f"method {method.name!r}: a ladder carries one learning rate, found at width {found.width} with batch {found.batch}, "
            f"to all sizes; give one or none, not {len(method.learning_rates)}"
        )
    return replace(found, value=given, search=(1.0,), source=FIXED)


def carried_rate(laws: Laws, found: BaseRate, size: Size, completep_base: Size | None, batch: int, images: float) -> float:
    """The peak rate at a size, batch and number of images, from where it was found.

    Under CompleteP the rate is stated at the recipe's base size, and hidden weights divide it by the width; else it falls as the
    square root of the width.
    """
    across = math.sqrt(found.width / size.width) if completep_base is None else found.width / completep_base.width
    longer = (images / found.images) ** -laws.horizon.value
    return found.value * across * longer * (batch / found.batch) ** laws.batch_rate.value


def _batch(laws: Laws, images: float, least_images: float, most_images: float) -> int:
    """The law's batch as a power of two that leaves every rung between LEAST_STEPS and MOST_STEPS."""
    wanted = round(math.log2(laws.batch(images).value))
    largest = math.floor(math.log2(least_images / LEAST_STEPS))
    smallest = math.ceil(math.log2(max(most_images / MOST_STEPS, LEAST_BATCH)))
    return int(2 ** max(min(wanted, largest), smallest))


def _rounded(value: float, digits: int) -> float:
    """With so many significant digits, as a person would write it."""
    return float(f"{value:.{digits}g}")
