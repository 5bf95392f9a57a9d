"""`check_paradigm(cls)`: the public conformance test that every plugin should pass. Runs on CPU in seconds.

Each finding is one sentence. It checks the contract, not the quality of the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, ConditionSpace
from bench.flops.count import TRAINING_MULTIPLE, UncountedOperatorError
from bench.flops.meter import FlopMeter
from bench.flops.sampling import count_sampling
from bench.paradigm import Paradigm, TokenSpace
from bench.randomness import Part, PartRandomness

BATCH = 8
BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
CONDITIONS = ConditionSpace(num_tokens=3, vocabulary=11)
SPACES = {
    "latents": TokenSpace(kind="latents", grid=3, channels=4),
    "codes": TokenSpace(kind="codes", grid=3, vocabulary=32),
}
LEARNING_STEPS = 60
LEAK_STEPS, LEAK_BATCH = 150, 32
LEAK_SHARE = 0.4
"""No honest loss falls so far on tokens that are fresh noise at every step: predicted noise falls to the mean signal share, about
0.5 of its start, cross-entropy and velocity not at all."""
LEAK_LEVEL = {"latents": 0.15, "codes": float("inf")}
"""Nor below this: a bound on the likelihood may start high, but the squared error of unit latents' noise stays above 0.2."""


def example_batch(space: TokenSpace, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, Condition]:
    """Random tokens (B, N, C) or (B, N) and conditions of a space."""
    generator = torch.Generator().manual_seed(seed)
    tokens = space.example(batch, generator)
    words = torch.randint(1, CONDITIONS.vocabulary, (batch, CONDITIONS.num_tokens), generator=generator)
    return tokens, Condition.of(words)


def build(cls: type[Paradigm], **options: object) -> Paradigm:
    """A tiny seeded instance."""
    torch.manual_seed(0)
    return cls(BACKBONE, SPACES[cls.reads], CONDITIONS, **options)


def descend(
    paradigm: Paradigm, batch: Callable[[int], tuple[Tensor, Condition]], steps: int, *, rate: float, clip: float = math.inf
) -> list[float]:
    """Mean loss before each of `steps` seeded Adam steps on `batch(step)`, gradients clipped to a norm."""
    optimizer = torch.optim.Adam(paradigm.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        tokens, condition = batch(step)
        torch.manual_seed(step)
        loss = paradigm.loss(tokens, condition)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        if math.isfinite(clip):
            torch.nn.utils.clip_grad_norm_(paradigm.parameters(), clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def learn(paradigm: Paradigm, tokens: Tensor, condition: Condition, steps: int = LEARNING_STEPS) -> tuple[float, float]:
    """Mean loss over the first and the last tenth of `steps` Adam steps on one batch (B, ...), its last condition hidden."""
    condition = condition.dropped(torch.arange(len(condition)) == len(condition) - 1)
    losses = descend(paradigm, lambda step: (tokens, condition), steps, rate=3e-3)
    tenth = max(1, steps // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def draw(paradigm: Paradigm, condition: Condition, *, guidance: float = 1.0, seed: int = 0) -> Tensor:
    """Samples (B, N, C) or (B, N) with a seeded generator."""
    with torch.no_grad():
        return paradigm.sample(
            condition, steps=None, guidance=guidance, temperature=1.0, generator=torch.Generator().manual_seed(seed)
        )


def check_paradigm(cls: type[Paradigm], **options: object) -> list[str]:
    """Test a paradigm class against the contract.

    Args:
        options: keyword arguments for the constructor.

    Returns:
        What is wrong, a sentence each; empty when it conforms.
    """
    for name in ("reads", "loss_unit", "default_steps"):
        if not hasattr(cls, name):
            return [f"class variable {name!r} is missing"]
    if cls.reads not in SPACES:
        return [f"reads is {cls.reads!r}; it must be 'latents' or 'codes'"]
    paradigm = build(cls, **options)
    tokens, condition = example_batch(paradigm.space)
    problems = _check_loss(paradigm, tokens, condition)
    if problems:
        return problems
    problems += _check_counting(cls, options, tokens, condition)
    before, after = learn(paradigm, tokens, condition)
    if not after < 0.95 * before:
        problems.append(f"{LEARNING_STEPS} steps on one batch do not reduce the loss ({before:.4g} to {after:.4g})")
    missing = [name for name, p in paradigm.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    if missing:
        problems.append(f"parameters without gradient after training: {', '.join(missing)}")
    if _leaks(build(cls, **options)):
        problems.append(
            "its loss learns to predict fresh random tokens, which nothing can: it reads the token that it predicts, or shares "
            "noise between input and target"
        )
    return problems + _check_samples(paradigm.eval(), condition)


def _check_counting(cls: type[Paradigm], options: dict[str, object], tokens: Tensor, condition: Condition) -> list[str]:
    """The meter's count on meta must be what really runs, by torch's counter with the attention that it can see."""
    try:
        with torch.device("meta"):
            meta = build(cls, **options)
        counted = FlopMeter(meta, CONDITIONS).count(BATCH, 0).dense // TRAINING_MULTIPLE
        count_sampling(meta, CONDITIONS, steps=None, guidance=2.0)
    except (UncountedOperatorError, NotImplementedError, RuntimeError) as error:
        return [f"its FLOPs cannot be counted on the meta device: {str(error).splitlines()[0]}"]
    real = build(cls, **options)
    torch.manual_seed(0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        real.loss(tokens, condition)
    if counter.get_total_flops() != counted:
        return [
            f"its loss runs {counter.get_total_flops():,} FLOPs on real tensors but {counted:,} where they are counted: what "
            "runs must not depend on the device or on values"
        ]
    return []


def _leaks(paradigm: Paradigm) -> bool:
    """Whether the loss on tokens drawn anew for every step falls further than any honest one can."""
    fresh = lambda step: example_batch(paradigm.space, LEAK_BATCH, seed=1_000 + step)  # noqa: E731
    losses = descend(paradigm, fresh, LEAK_STEPS, rate=1e-2, clip=1.0)
    first, last = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
    return last < LEAK_SHARE * first and last < LEAK_LEVEL[paradigm.reads]


def _check_loss(paradigm: Paradigm, tokens: Tensor, condition: Condition) -> list[str]:
    torch.manual_seed(0)
    loss, scalars = paradigm.loss(tokens, condition)
    torch.manual_seed(0)
    again = paradigm.loss(tokens, condition)[0]
    problems = []
    if loss.shape != (BATCH,):
        return [f"loss has shape {tuple(loss.shape)}; it must be one value per image, ({BATCH},)"]
    if not torch.isfinite(loss).all():
        problems.append("loss is not finite on random tokens")
    elif not (loss > 0).all():
        problems.append("loss is not positive on random tokens at initialization")
    if not torch.equal(loss, again):
        problems.append("loss differs between two calls under the same torch seed")
    buffers = {name: value.clone() for name, value in paradigm.named_buffers()}
    torch.manual_seed(0)
    evaluated = paradigm.eval().loss(tokens, condition)[0]
    paradigm.train()
    if torch.isfinite(loss).all() and not torch.allclose(loss, evaluated, rtol=1e-5, atol=1e-6):
        problems.append(
            "loss differs between train() and eval() under one seed: dropout or batch statistics change what is trained"
        )
    halves = []
    for index in range(2):
        part = Part(index, 2)
        rows = part.rows(BATCH)
        torch.manual_seed(0)
        with PartRandomness(part, BATCH // 2):
            halves.append(paradigm.loss(tokens[rows], condition[rows])[0])
    if torch.isfinite(loss).all() and not torch.allclose(loss, torch.cat(halves), rtol=1e-4, atol=1e-5):
        problems.append(
            "the loss of half a batch is not that of these images in the whole batch, so devices could not share a step: draw "
            "noise with the image as the leading axis, what a batch shares as a scalar, and mix no images"
        )
    paradigm.loss(tokens, condition)
    if any(not torch.equal(value, buffers[name]) for name, value in paradigm.named_buffers()):
        problems.append("loss changes buffers: averaged weights do not carry them, so training and sampling would differ")
    if not all(isinstance(value, Tensor) and value.ndim == 0 for value in scalars.values()):
        problems.append("the second return value of loss must map names to scalar tensors")
    return problems


def shake(paradigm: Paradigm) -> None:
    """Add noise to every parameter: layers that start at zero would hide what the network reads."""
    generator = torch.Generator().manual_seed(3)
    for parameter in paradigm.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def _check_samples(paradigm: Paradigm, condition: Condition) -> list[str]:
    shake(paradigm)
    space, first = paradigm.space, draw(paradigm, condition)
    shape = (BATCH, space.num_tokens, space.channels) if space.kind == "latents" else (BATCH, space.num_tokens)
    if tuple(first.shape) != shape:
        return [f"samples have shape {tuple(first.shape)}; they must have {shape}"]
    problems = []
    if space.kind == "codes" and (first.dtype != torch.int64 or int(first.min()) < 0 or int(first.max()) >= space.vocabulary):
        problems.append(f"samples must be int64 codes in 0..{space.vocabulary - 1}")
    if space.kind == "latents" and not torch.isfinite(first).all():
        problems.append("samples are not finite")
    if not torch.equal(first, draw(paradigm, condition)):
        problems.append("sampling twice with equal generators gives different tokens")
    if torch.equal(first, draw(paradigm, condition, seed=1)):
        problems.append("sampling ignores the generator")
    other = Condition.of(condition.tokens.flip(0))
    if torch.equal(first, draw(paradigm, other)):
        problems.append("sampling ignores the condition")
    if torch.equal(first, draw(paradigm, condition, guidance=4.0)):
        problems.append("sampling ignores guidance")
    return problems
