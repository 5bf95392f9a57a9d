"""How fast this machine trains a run: a few timed steps of its first blocks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from bench.conditioning import Condition
from bench.config.run import Run
from bench.config.size import Size
from bench.data.base import TokenizedData
from bench.model import build_paradigm, device_type
from bench.paradigm import TokenSpace
from bench.plan.cost import RunCost, in_a_sentence

CALIBRATION_FLOPS = 1.5e9
"""Size of a calibration step; a full batch of a large model would take minutes on a CPU."""
CALIBRATION_DEPTH = 2
"""Blocks that are timed: more of the same take as long each, and a large model would take minutes to build."""
CALIBRATION_WIDTH = 512
"""Wider ones are taken to be as fast: on a CPU a step of theirs takes minutes."""
CALIBRATION_STEPS = 3
NARROWEST_BF16 = 128
"""Below this bf16 gains nothing (docs/log.md, `make bench` precision)."""
CLEARLY_FASTER = 1.15
"""More than calibrations differ by."""
SLOW_SECONDS = 3.0
"""A pass this long needs no repetition to be told from its start-up."""


def measure_speed(runs: Sequence[Run], dataset: TokenizedData, cost: Callable[[Size], RunCost]) -> Callable[[int], float]:
    """Training FLOP/s of one worker alone here as a function of the width: measured at the narrowest of the runs and, where
    widths differ by 2 or more, at the widest up to CALIBRATION_WIDTH; a power of the width between them.

    Args:
        cost: counted cost of the runs' method at a size.
    """
    narrow = min(runs, key=lambda run: run.width)
    wide = max((run for run in runs if run.width <= max(CALIBRATION_WIDTH, narrow.width)), key=lambda run: run.width)
    measured = [
        (run.width, _speed(run, dataset, cost)) for run in ((narrow, wide) if wide.width >= 2 * narrow.width else (narrow,))
    ]
    (low, slow), (high, fast) = measured[0], measured[-1]

    def speed(width: int) -> float:
        if low == high:
            return slow
        share = math.log(min(max(width, low), high) / low) / math.log(high / low)
        return slow ** (1 - share) * fast**share

    return speed


def precision_note(run: Run, dataset: TokenizedData, cost: Callable[[Size], RunCost]) -> str:
    """A sentence where a run would train clearly faster here in the other precision; empty where it would not, or is narrower
    than any that gains by bf16. The plan keeps its precision: it changes results, which must not depend on the machine.

    Args:
        cost: counted cost of the run's method at a size.
    """
    if run.width < NARROWEST_BF16:
        return ""
    other: Literal["fp32", "bf16"] = "bf16" if run.recipe.precision == "fp32" else "fp32"
    changed = replace(run, recipe=replace(run.recipe, precision=other))
    gain = _speed(changed, dataset, cost) / _speed(run, dataset, cost)
    if gain < CLEARLY_FASTER:
        return ""
    return (
        f"on this machine {run.method} at {run.size.name} trains {gain:.2g} times as fast in {other}: "
        f'precision="{other}" in the recipe or the ladder would save that, with results of its own'
    )


def _speed(run: Run, dataset: TokenizedData, cost: Callable[[Size], RunCost]) -> float:
    shallow = replace(run, depth=min(run.depth, CALIBRATION_DEPTH))
    return calibrate(shallow, dataset.space(run.tokenizer), dataset, cost(shallow.size).dense)


def calibrate(run: Run, space: TokenSpace, dataset: TokenizedData, flops_per_image: float) -> float:
    """Training FLOP/s of one worker alone here: the fastest of a few real forward and backward passes of the run's first blocks,
    with `flops_per_image` theirs."""
    device = device_type()
    batch = max(1, min(run.recipe.batch_size, math.ceil(CALIBRATION_FLOPS / flops_per_image)))
    with torch.device(device):
        paradigm = build_paradigm(run, space, dataset.conditions)
        condition_tokens = dataset.conditions.example(batch)
        tokens = space.example(batch)
        features = space.features.example(batch) if space.features else None
    seconds = []
    for _ in range(CALIBRATION_STEPS):
        start = time.perf_counter()
        with in_a_sentence(run.method, "a training step"):
            with torch.autocast(device, torch.bfloat16, enabled=run.recipe.precision == "bf16"):
                loss, _ = paradigm.loss(tokens, Condition.of(condition_tokens, features))
            loss.mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > SLOW_SECONDS:
            break
    return flops_per_image * batch / min(seconds)
