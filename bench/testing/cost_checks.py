"""What a plugin costs must be what is counted: in training, in sampling, on the backbone of the size that the run names."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.backbone import Backbone, Block
from bench.conditioning import Condition
from bench.errors import first_line
from bench.flops.meter import FlopMeter, LossForward
from bench.flops.sampling import count_sampling
from bench.flops.step import StepCounter, count_step
from bench.paradigm import Paradigm
from bench.testing.example import (
    BACKBONE,
    BATCH,
    CONDITIONS,
    build,
    draw,
    example_batch,
    example_space,
    seeded_loss,
    takes_guidance,
)
from bench.testing.harness import altered_rule, replaced

STEPS = (2, 4)
"""Numbers of sampler steps that are tried."""


def check_harness(cls: type[Paradigm], **options: object) -> list[str]:
    """The suite's own functions are those of its source, after the plugin was imported, trained and sampled."""
    paradigm = build(cls, **options)
    tokens, condition = example_batch(paradigm.space)
    seeded_loss(paradigm, tokens, condition).mean().backward()
    draw(paradigm, condition)
    found = replaced(cls.__module__.partition(".")[0]) + altered_rule()
    return [f"it replaces what belongs to the suite: {', '.join(found[:3])}"] if found else []


def check_backbone(cls: type[Paradigm], **options: object) -> list[str]:
    """The backbone is the one that the run's size names."""
    backbone = build(cls, **options).backbone
    if type(backbone) is not Backbone or any(type(block) is not Block for block in backbone.blocks):
        return ["its backbone is not bench.backbone.Backbone, which all paradigms share"]
    mine, given = backbone.config, BACKBONE
    for name in ("width", "depth", "num_heads", "mlp_ratio"):
        if getattr(mine, name) != getattr(given, name):
            return [f"its backbone has {name} {getattr(mine, name)}, not the {getattr(given, name)} that it was given"]
    if len(backbone.blocks) != given.depth:
        return [f"its backbone has {len(backbone.blocks)} blocks, not the {given.depth} that it was given"]
    return []


def _meta(cls: type[Paradigm], options: dict[str, object]) -> Paradigm:
    with torch.device("meta"):
        return build(cls, **options)


def check_training_cost(cls: type[Paradigm], **options: object) -> list[str]:
    """A step's count on meta is what really runs, by torch's counter with the attention that it can see."""
    meter = FlopMeter(_meta(cls, options), CONDITIONS, "meta-v2")
    real = LossForward(build(cls, **options))
    tokens, condition = example_batch(space := example_space(cls))
    inputs = tokens, condition.tokens, condition.null, *(() if condition.features is None else (condition.features,))
    frozen = BATCH * space.features.flops if space.features else 0
    for seed in range(2):
        torch.manual_seed(seed)
        with sdpa_kernel(SDPBackend.MATH), meter.watching():
            real(*inputs)
        try:
            counted = meter.bill(BATCH, seed).dense - frozen
        except ValueError as error:
            return [first_line(error)]
        except Exception as error:
            return [f"its FLOPs cannot be counted on the meta device: {type(error).__name__}: {first_line(error)}"]
        torch.manual_seed(seed)
        with sdpa_kernel(SDPBackend.MATH):
            ran = count_step(real, inputs, BACKBONE.width)
        if ran != counted:
            return [
                f"a training step runs {ran:,} FLOPs on real tensors but {counted:,} where they are counted: what runs must not "
                "depend on the device or on values"
            ]
    return []


def _sampling_flops(paradigm: Paradigm, condition: Condition, steps: int | None, guidance: float) -> tuple[int, Tensor]:
    """FLOPs of really sampling, and the samples."""
    with StepCounter() as counter, sdpa_kernel(SDPBackend.MATH):
        out = draw(paradigm, condition, guidance=guidance, steps=steps)
    return counter.flops, out


def check_sampling_cost(cls: type[Paradigm], **options: object) -> list[str]:
    """Sampling costs on real tensors what is counted on meta: one image and several, two numbers of steps, every call."""
    paradigm, meta = build(cls, **options).eval(), _meta(cls, options)
    _, condition = example_batch(paradigm.space)
    guidance = 2.0 if takes_guidance(paradigm, condition) else 1.0
    drawn: dict[int | None, tuple[int, Tensor]] = {}
    for batch in (1, BATCH):
        for steps in (None, *STEPS) if batch == 1 else (None,):
            try:
                cost, out = _sampling_flops(paradigm, condition[:batch], steps, guidance)
            except ValueError:
                if steps is None:
                    raise
                continue
            counted = count_sampling(meta, CONDITIONS, steps=steps, guidance=guidance, batch=batch).total
            again, _ = _sampling_flops(paradigm, condition[:batch], steps, guidance)
            if cost != counted:
                return [f"sampling {batch} images runs {cost:,} FLOPs on real tensors but {counted:,} where they are counted"]
            if again != cost:
                return [f"sampling the same again runs {again:,} FLOPs, the first time {cost:,}: keep nothing between calls"]
            if batch == 1:
                drawn[steps] = cost, out
    first, second = (drawn.get(steps) for steps in STEPS)
    if first and second and first[0] == second[0] and torch.equal(first[1], second[1]):
        return [f"sampling ignores steps: {STEPS[0]} and {STEPS[1]} draw the same; refuse what it cannot do by ValueError"]
    return []
