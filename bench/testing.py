"""`check_paradigm(cls)`: the public conformance test that every plugin should pass. Runs on CPU in seconds.

Each finding is one sentence. It checks the contract, not the quality of the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, ConditionSpace
from bench.evaluate.validation import checked_nats
from bench.flops.count import TRAINING_MULTIPLE, UncountedOperatorError
from bench.flops.meter import FlopMeter
from bench.flops.sampling import count_sampling
from bench.paradigm import Paradigm, TokenSpace
from bench.randomness import Part, PartRandomness

Check = Callable[..., list[str]]
BATCH = 8
BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
CONDITIONS = ConditionSpace(num_tokens=3, vocabulary=11)
SPACES = {
    "latents": TokenSpace(kind="latents", grid=3, channels=4),
    "codes": TokenSpace(kind="codes", grid=3, vocabulary=32),
}
LEARNING_STEPS, LEAK_STEPS, LEAK_BATCH = 60, 150, 32
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
    optimizer = torch.optim.Adam(paradigm.parameters(), lr=rate, fused=True)
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


@torch.no_grad()
def draw(paradigm: Paradigm, condition: Condition, *, guidance: float = 1.0, seed: int = 0) -> Tensor:
    """Samples (B, N, C) or (B, N) with a seeded generator."""
    generator = torch.Generator().manual_seed(seed)
    return paradigm.sample(condition, steps=None, guidance=guidance, temperature=1.0, generator=generator)


def check_paradigm(cls: type[Paradigm], **options: object) -> list[str]:
    """Test a paradigm class against the contract: every check of `paradigm_checks`, until a stage of them finds something.

    Args:
        options: keyword arguments for the constructor.

    Returns:
        What is wrong, a sentence each; empty when it conforms.
    """
    for stage in _STAGES:
        problems = [problem for check in stage.values() for problem in check(cls, **options)]
        if problems and stage is not _STAGES[-1]:
            return problems
    return problems


def paradigm_checks() -> Iterator[tuple[str, Check]]:
    """Name and function of every check, so that a test of a plugin can have an item for each.

    A check takes the class and its constructor's keyword arguments and returns what is wrong, a sentence each. They stand alone;
    where an early one fails, later ones may raise.
    """
    for stage in _STAGES:
        yield from stage.items()


def _check_declaration(cls: type[Paradigm], **_: object) -> list[str]:
    for name in ("reads", "loss_unit", "default_steps"):
        if not hasattr(cls, name):
            return [f"class variable {name!r} is missing"]
    if cls.reads not in SPACES:
        return [f"reads is {cls.reads!r}; it must be 'latents' or 'codes'"]
    return []


def _example(cls: type[Paradigm], options: dict[str, object]) -> tuple[Paradigm, Tensor, Condition, Tensor]:
    """A tiny instance, a batch of random tokens and conditions, and its loss on them (B,)."""
    paradigm = build(cls, **options)
    tokens, condition = example_batch(paradigm.space)
    return paradigm, tokens, condition, _seeded_loss(paradigm, tokens, condition)


def _seeded_loss(paradigm: Paradigm, tokens: Tensor, condition: Condition) -> Tensor:
    torch.manual_seed(0)
    return paradigm.loss(tokens, condition)[0]


def _check_shape(cls: type[Paradigm], **options: object) -> list[str]:
    *_, loss = _example(cls, options)
    right = loss.shape == (BATCH,)
    return [] if right else [f"loss has shape {tuple(loss.shape)}; it must be one value per image, ({BATCH},)"]


def _check_values(cls: type[Paradigm], **options: object) -> list[str]:
    *_, loss = _example(cls, options)
    if not torch.isfinite(loss).all():
        return ["loss is not finite on random tokens"]
    if not (loss > 0).all():
        return ["loss is not positive on random tokens at initialization"]
    return []


def _check_repetition(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm, tokens, condition, loss = _example(cls, options)
    same = torch.equal(loss, _seeded_loss(paradigm, tokens, condition))
    return [] if same else ["loss differs between two calls under the same torch seed"]


def _check_modes(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm, tokens, condition, loss = _example(cls, options)
    if torch.isfinite(loss).all() and not torch.allclose(
        loss, _seeded_loss(paradigm.eval(), tokens, condition), rtol=1e-5, atol=1e-6
    ):
        return ["loss differs between train() and eval() under one seed: dropout or batch statistics change what is trained"]
    return []


def _check_division(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm, tokens, condition, loss = _example(cls, options)
    halves = []
    for index in range(2):
        part = Part(index, 2)
        rows = part.rows(BATCH)
        torch.manual_seed(0)
        with PartRandomness(part, BATCH // 2):
            halves.append(paradigm.loss(tokens[rows], condition[rows])[0])
    if torch.isfinite(loss).all() and not torch.allclose(loss, torch.cat(halves), rtol=1e-4, atol=1e-5):
        return [
            "the loss of half a batch is not that of these images in the whole batch, so devices could not share a step: draw "
            "noise with the image as the leading axis, what a batch shares as a scalar, and mix no images"
        ]
    return []


def _check_buffers(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm = build(cls, **options)
    before = {name: value.clone() for name, value in paradigm.named_buffers()}
    paradigm.loss(*example_batch(paradigm.space))
    if any(not torch.equal(value, before[name]) for name, value in paradigm.named_buffers()):
        return ["loss changes buffers: averaged weights do not carry them, so training and sampling would differ"]
    return []


def _check_scalars(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm = build(cls, **options)
    scalars = paradigm.loss(*example_batch(paradigm.space))[1]
    if not all(isinstance(value, Tensor) and value.ndim == 0 for value in scalars.values()):
        return ["the second return value of loss must map names to scalar tensors"]
    return []


def _check_likelihood(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm = build(cls, **options)
    try:
        checked_nats(paradigm, *example_batch(paradigm.space))
    except ValueError as error:
        return [str(error)]
    return []


def _check_counting(cls: type[Paradigm], **options: object) -> list[str]:
    """The meter's count on meta must be what really runs, by torch's counter with the attention that it can see."""
    try:
        with torch.device("meta"):
            meta = build(cls, **options)
        counted = FlopMeter(meta, CONDITIONS).count(BATCH, 0).dense // TRAINING_MULTIPLE
        count_sampling(meta, CONDITIONS, steps=None, guidance=2.0)
    except (UncountedOperatorError, NotImplementedError, RuntimeError) as error:
        return [f"its FLOPs cannot be counted on the meta device: {str(error).splitlines()[0]}"]
    real = build(cls, **options)
    tokens, condition = example_batch(real.space)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        _seeded_loss(real, tokens, condition)
    if counter.get_total_flops() != counted:
        return [
            f"its loss runs {counter.get_total_flops():,} FLOPs on real tensors but {counted:,} where they are counted: what "
            "runs must not depend on the device or on values"
        ]
    return []


def _check_learning(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm = build(cls, **options)
    before, after = learn(paradigm, *example_batch(paradigm.space))
    problems = []
    if not after < 0.95 * before:
        problems.append(f"{LEARNING_STEPS} steps on one batch do not reduce the loss ({before:.4g} to {after:.4g})")
    missing = [name for name, p in paradigm.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    return problems + ([f"parameters without gradient after training: {', '.join(missing)}"] if missing else [])


def _check_leaks(cls: type[Paradigm], **options: object) -> list[str]:
    """The loss on tokens drawn anew for every step must not fall further than any honest one can."""
    paradigm = build(cls, **options)
    fresh = lambda step: example_batch(paradigm.space, LEAK_BATCH, seed=1_000 + step)  # noqa: E731
    losses = descend(paradigm, fresh, LEAK_STEPS, rate=1e-2, clip=1.0)
    first, last = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
    if last < LEAK_SHARE * first and last < LEAK_LEVEL[paradigm.reads]:
        return [
            "its loss learns to predict fresh random tokens, which nothing can: it reads the token that it predicts, or shares "
            "noise between input and target"
        ]
    return []


def shake(paradigm: Paradigm) -> None:
    """Add noise to every parameter: layers that start at zero would hide what the network reads."""
    generator = torch.Generator().manual_seed(3)
    for parameter in paradigm.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def _check_samples(cls: type[Paradigm], **options: object) -> list[str]:
    paradigm = build(cls, **options).eval()
    _, condition = example_batch(paradigm.space)
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


_STAGES: tuple[dict[str, Check], ...] = (
    {"declaration": _check_declaration},
    {"loss-shape": _check_shape},
    {
        "loss-values": _check_values,
        "loss-repetition": _check_repetition,
        "loss-modes": _check_modes,
        "loss-division": _check_division,
        "loss-buffers": _check_buffers,
        "loss-scalars": _check_scalars,
        "likelihood": _check_likelihood,
    },
    {"counting": _check_counting, "learning": _check_learning, "leaks": _check_leaks, "samples": _check_samples},
)
"""Checks by name; one stage needs what the stages before it found in order."""
