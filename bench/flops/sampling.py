"""FLOPs of sampling an image, and of any call on meta tensors, by torch's own counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.conditioning import Condition, ConditionSpace
from bench.flops.meter import meta_batch
from bench.flops.step import StepCounter
from bench.paradigm import Paradigm


@dataclass(frozen=True, slots=True)
class SamplingCost:
    """FLOPs of sampling one image's tokens, by the part of the paradigm that runs them."""

    backbone: int
    condition: int
    """Embedding of the condition: the text's share."""
    head: int
    """All the rest: token embedding, head, diffusion steps of the head."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.backbone + self.condition + self.head


def count_sampling(
    meta_paradigm: Paradigm,
    conditions: ConditionSpace,
    *,
    steps: int | None,
    guidance: float,
    temperature: float = 1.0,
    batch: int = 1,
) -> SamplingCost:
    """FLOPs of sampling one image's tokens, or a batch's, guidance and every step included, by torch's counter on meta tensors.

    An operator that the counter does not know is an error here too.

    Raises:
        UncountedOperatorError: for such an operator.
    """
    _, condition_tokens, null, *_ = meta_batch(meta_paradigm, conditions, batch)
    condition, generator = Condition(condition_tokens, null), torch.Generator()
    spent = {"backbone": 0, "condition": 0}
    hooks = []
    with StepCounter() as counter, torch.no_grad():
        for name, module in (("backbone", meta_paradigm.backbone), ("condition", meta_paradigm.embed_condition)):

            def before(*_: object, name: str = name) -> None:
                spent[name] -= counter.flops

            def after(*_: object, name: str = name) -> None:
                spent[name] += counter.flops

            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        meta_paradigm.sample(condition, steps=steps, guidance=guidance, temperature=temperature, generator=generator)
    for hook in hooks:
        hook.remove()
    return SamplingCost(head=counter.flops - sum(spent.values()), **spent)


def count_call(call: Callable[[], object]) -> int:
    """FLOPs of a call on meta tensors without gradients, by torch's counter: for loops and convolutions, which fvcore cannot
    trace there."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()
