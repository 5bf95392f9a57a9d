"""What a sampler must give: tokens of the space, decided by generator, condition, guidance and weights, and by nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.paradigm import Paradigm
from bench.testing.example import BATCH, build, draw, example_batch, seeded_loss, shake, takes_guidance

UNSEEN = 77
"""Seed of tokens that no other check shows."""
TRIES = 8
"""Seeds of samples under which a parameter may change nothing by chance: few codes of a step hang on a layer near the input."""


def check_samples(cls: type[Paradigm], **options: object) -> list[str]:
    """Samples have the right shape and values, and follow generator, condition and guidance."""
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
    if takes_guidance(paradigm, condition) and torch.equal(first, draw(paradigm, condition, guidance=4.0)):
        problems.append("sampling ignores guidance; refuse what it cannot do by ValueError")
    return problems


def check_state(cls: type[Paradigm], **options: object) -> list[str]:
    """Weights alone decide what is sampled: neither what the loss was called with before, nor earlier samples."""
    paradigm = build(cls, **options).eval()
    shake(paradigm)
    tokens, condition = example_batch(paradigm.space)
    seeded_loss(paradigm, tokens, condition)
    first = draw(paradigm, condition)
    if bool(_same_images(first, tokens).any()):
        return ["an untrained model draws images that its loss was called with: it replays them"]
    unseen, _ = example_batch(paradigm.space, seed=UNSEEN)
    seeded_loss(paradigm, unseen, condition)
    if not torch.equal(first, draw(paradigm, condition)):
        return ["samples change when the loss is called with other images and the weights stay: keep nothing but weights"]
    shake(paradigm, seed=4)
    if torch.equal(first, draw(paradigm, condition)):
        return ["samples stay when the weights change: keep nothing between calls"]
    return []


def check_parameters(cls: type[Paradigm], **options: object) -> list[str]:
    """Matrices and numbers that the loss reads decide what is sampled: it leaves no layer out, and the loss is told no more."""
    paradigm = build(cls, **options).eval()
    shake(paradigm)
    tokens, condition = example_batch(paradigm.space)
    loss, unread = seeded_loss(paradigm, tokens, condition), []
    first = [draw(paradigm, condition, seed=seed) for seed in range(TRIES)]
    for name, parameter in paradigm.named_parameters():
        if parameter.ndim == 1 or name.startswith(paradigm.training_only):
            continue
        before = parameter.detach().clone()
        parameter.data += 2.0 * torch.randint(2, parameter.shape, generator=torch.Generator().manual_seed(5)) - 1
        if all(torch.equal(drawn, draw(paradigm, condition, seed=seed)) for seed, drawn in enumerate(first)):
            changed = seeded_loss(paradigm, tokens, condition)
            unread += [] if torch.allclose(loss, changed, rtol=1e-3, atol=1e-5) else [name]
        parameter.data.copy_(before)
    said = "its loss reads parameters that its sampler leaves out (those of training_only may be)"
    return [f"{said}: {', '.join(unread)}"] if unread else []


def _same_images(drawn: Tensor, tokens: Tensor) -> Tensor:
    """Whether each of B drawn images (B, ...) is, for nine tenths of its values, one of the B given ones (B, ...): (B,)."""
    equal = (drawn[:, None] - tokens[None]).abs() < 1e-3
    return (equal.flatten(2).float().mean(2) > 0.9).any(1)
