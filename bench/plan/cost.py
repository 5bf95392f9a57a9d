"""What a run costs, and whether its sampler accepts its settings: counted on meta tensors, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import torch

from bench.config.experiment import Method, merged
from bench.config.run import Run
from bench.errors import first_line
from bench.flops.count import num_parameters
from bench.flops.meter import FlopMeter, meta_batch
from bench.model import build_meta
from bench.paradigm import Condition, ConditionSpace, Paradigm
from bench.randomness import step_seed

SHAPE_DRAWS = 16
"""Step seeds tried to average the cost of a loss with random shapes: planned steps are good to about 3 %, bills are exact."""


@contextmanager
def in_a_sentence(method: str, doing: str) -> Iterator[None]:
    """Around what a plugin does while planning.

    Raises:
        ValueError: for any exception, naming the method, what it was doing and the reason in one line.
    """
    try:
        yield
    except Exception as error:
        line = first_line(error)
        reason = line if isinstance(error, ValueError) else f"{doing} fails with {type(error).__name__}: {line}"
        raise ValueError(reason if reason.startswith("method ") else f"method {method!r}: {reason}") from error


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

    _, condition_tokens, null, *_ = meta_batch(meta, conditions, 1)
    for setting in method.settings:
        paradigm = build_meta(replace(run, options=merged(run.options, setting.options)), meta.space, conditions)
        paradigm.backbone.register_forward_pre_hook(stop)
        with in_a_sentence(method.name, "its sampler on the meta device"), suppress(_NetworkReachedError):
            paradigm.sample(
                Condition(condition_tokens, null),
                steps=setting.steps,
                guidance=setting.guidance,
                temperature=setting.temperature,
                generator=torch.Generator(),
            )


@dataclass(frozen=True, slots=True)
class RunCost:
    """Mean training cost per image."""

    num_params: int
    dense: float
    causal: float


def count_run(run: Run, meta: Paradigm, conditions: ConditionSpace) -> RunCost:
    """Training FLOPs per image, averaged over the shapes that the first steps draw.

    Raises:
        ValueError: when the loss cannot be counted, in one line.
    """
    meter, batch = FlopMeter(meta, conditions, run.flop_rule), run.recipe.batch_size
    seeds = [step_seed(run.seed, step, "loss") for step in range(SHAPE_DRAWS)]
    with in_a_sentence(run.method, "counting its loss on the meta device"):
        counts = meter.expected(seeds, batch)
    images = len(counts) * batch
    return RunCost(num_parameters(meta), sum(c.dense for c in counts) / images, sum(c.causal for c in counts) / images)
