"""What may be measured on a run for a share of its training FLOPs: the one rule of what an evaluation costs.

Sampling costs dozens of forward passes per image, so that on a short run it would cost more than training. A run whose share does
not pay for as many test images as every other run has, is not sampled: its validation loss says how it did. Fewer images would
bring another bias of FID, and rows that do not compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.config.experiment import Evaluation, Setting
from bench.config.run import Run
from bench.flops.count import TRAINING_MULTIPLE

VALIDATION_BATCH = 32
BATCHES, AT_FLOPS, AT_TOKENS = 6, 2e10, 16
"""192 images of 16 tokens at 2e10 FLOPs. Loss and likelihood with averaged weights and loss with raw ones are then 5.5 % of the
training of next-token at width 24 with 4 blocks, which sees 3,650 images; another seed of noise moves a loss by .5 % (one
standard deviation, measured on trained networks: docs/log.md), and by less on longer rungs."""
IMAGES_EXPONENT = 0.43
"""The images that a network of the best size sees grow so with its FLOPs (Liang et al. 2024): the share stays the same."""
MAX_BATCHES = 128
LEAST_TRIES = 3
"""Settings: a carried one and the nearest on two sides."""
OWN_TRAINING = 0.5
"""Of a trunk's FLOPs up to a run's branch, the part that no lower rung has paid for: exact where rungs lie a factor 2 apart, and
less than the truth where they lie further apart."""


def num_validation_images(flops_budget: float, num_tokens: int) -> int:
    """Images for the validation loss of a rung, n: the same for all sizes and seeds, and for methods with equal token counts."""
    batches = round(BATCHES * (flops_budget / num_tokens / (AT_FLOPS / AT_TOKENS)) ** IMAGES_EXPONENT)
    return VALIDATION_BATCH * min(max(batches, 2), MAX_BATCHES)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured on a run beside its validation loss."""

    tries: int = 0
    """Sampler settings tried on validation conditions at most; 0 where the run is not sampled."""
    flops: float
    """At most, the validation loss included."""

    @property
    def is_sampled(self) -> bool:
        """Whether any image is drawn."""
        return self.tries > 0


def own_training(run: Run) -> float:
    """Training FLOPs of a run that no other run of its trunk pays for, at least."""
    return run.cooldown_flops + OWN_TRAINING * run.branch_flops


def affordable(
    evaluation: Evaluation, run: Run, *, num_tokens: int, flops_per_image: float, flops_per_sample: float, num_settings: int
) -> Measured:
    """What `evaluation.share` of a run's own training pays for: as many settings as fit beside a set of test images for each of
    two metrics, held-out images and timing; or the validation loss alone, where LEAST_TRIES do not fit.

    Args:
        flops_per_image: of training.
        flops_per_sample: of the dearest setting, decoding included.
        num_settings: of the method's grid.
    """
    assert evaluation.share is not None
    loss = 2 * num_validation_images(run.flops_budget, num_tokens) * flops_per_image / TRAINING_MULTIPLE
    allowed = evaluation.share * own_training(run) - loss
    timed = 1 + evaluation.latency_calls + sum(evaluation.throughput_batches)
    fixed = (2 * evaluation.num_samples + evaluation.num_held_out + timed) * flops_per_sample
    per_try = evaluation.num_validation * flops_per_sample
    tries = min(num_settings, int((allowed - fixed) / per_try))
    if tries < min(LEAST_TRIES, num_settings):
        return Measured(flops=loss)
    return Measured(tries=tries, flops=loss + fixed + tries * per_try)


def dearest(settings: Iterable[Setting], cost: Callable[[Setting], float]) -> float:
    """FLOPs of one image at the dearest of a method's settings; neither temperature nor the scale of guidance changes them."""
    kinds: dict[tuple[int | None, str], Setting] = {}
    for setting in sorted(settings, key=lambda s: s.guidance != 1.0):  # guided ones last, which cost more
        kinds[setting.steps, json.dumps(setting.options, sort_keys=True)] = setting
    return max(cost(setting) for setting in kinds.values())
