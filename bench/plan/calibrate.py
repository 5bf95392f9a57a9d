"""How fast this machine trains a run: a few timed steps of its first blocks."""

from __future__ import annotations

import math
import time

import torch

from bench.conditioning import Condition
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.model import build_paradigm, device_type
from bench.paradigm import TokenSpace
from bench.plan.cost import in_a_sentence

CALIBRATION_FLOPS = 1.5e9
"""Size of a calibration step; a full batch of a large model would take minutes on a CPU."""
CALIBRATION_STEPS = 3
SLOW_SECONDS = 3.0
"""A pass this long needs no repetition to be told from its start-up."""


def calibrate(run: Run, space: TokenSpace, dataset: TokenizedData, flops_per_image: float) -> float:
    """Training FLOP/s of one worker here: the fastest of a few real forward and backward passes of the run's first blocks, with
    `flops_per_image` theirs."""
    device = device_type()
    batch = max(1, min(run.recipe.batch_size, math.ceil(CALIBRATION_FLOPS / flops_per_image)))
    with torch.device(device):
        paradigm = build_paradigm(run, space, dataset.conditions)
        condition_tokens = dataset.conditions.example(batch)
        tokens = space.example(batch)
    seconds = []
    for _ in range(CALIBRATION_STEPS):
        start = time.perf_counter()
        with in_a_sentence(run.method, "a training step"):
            with torch.autocast(device, torch.bfloat16, enabled=run.recipe.precision == "bf16"):
                loss, _ = paradigm.loss(tokens, Condition.of(condition_tokens))
            loss.mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > SLOW_SECONDS:
            break
    return flops_per_image * batch / min(seconds)
