"""What a run costs, and whether its sampler accepts its settings: counted on meta tensors, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bench.config.experiment import Method, merged
from bench.config.run import Run
from bench.flops.count import num_parameters
from bench.flops.meter import FlopMeter, meta_batch
from bench.model import build_meta
from bench.paradigm import Condition, ConditionSpace, Paradigm
from bench.randomness import step_seed

SHAPE_DRAWS = 16
"""Step seeds tried to average the cost of a loss with random shapes: planned steps are good to about 3 %, bills are exact."""


class _NetworkReachedError(Exception):
    """The sampler accepted its settings and called the backbone."""


def check_sampler(run: Run, meta: Paradigm, method: Method, conditions: ConditionSpace) -> None:
    """Call the method's sampler on meta tensors up to its first use of the backbone, so that it refuses impossible settings
    before anything is trained.

    Raises:
        ValueError: as the sampler says, naming the method.
    """

    def stop(*_: object) -> None:
        raise _NetworkReachedError

    _, condition_tokens, null = meta_batch(meta, conditions, 1)
    for setting in method.settings:
        paradigm = build_meta(replace(run, options=merged(run.options, setting.options)), meta.space, conditions)
        paradigm.backbone.register_forward_pre_hook(stop)
        try:
            paradigm.sample(
                Condition(condition_tokens, null),
                steps=setting.steps,
                guidance=setting.guidance,
                temperature=setting.temperature,
                generator=torch.Generator(),
            )
        except _NetworkReachedError:
            continue
        except ValueError as error:
            raise ValueError(f"method {method.name!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class RunCost:
    """Mean training cost per image."""

    num_params: int
    dense: float
    causal: float


def count_run(run: Run, meta: Paradigm, conditions: ConditionSpace) -> RunCost:
    """Training FLOPs per image, averaged over the shapes that the first steps draw."""
    meter = FlopMeter(meta, conditions)
    seeds = [step_seed(run.seed, step, "loss") for step in range(SHAPE_DRAWS)]
    counts = meter.expected(seeds)
    return RunCost(num_parameters(meta), sum(c.dense for c in counts) / len(counts), sum(c.causal for c in counts) / len(counts))
