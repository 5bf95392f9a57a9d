"""What a loss must be: per image, finite, repeatable, the same when a batch is divided, and without a memory of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.evaluate.validation import checked_nats
from bench.paradigm import Paradigm
from bench.randomness import Part, PartRandomness
from bench.testing.example import BATCH, SPACES, build, example_batch, seeded_loss


def check_declaration(cls: type[Paradigm], **_: object) -> list[str]:
    """The class variables are there."""
    for name in ("reads", "loss_unit", "default_steps"):
        if not hasattr(cls, name):
            return [f"class variable {name!r} is missing"]
    if cls.reads not in SPACES:
        return [f"reads is {cls.reads!r}; it must be 'latents' or 'codes'"]
    if cls.grids not in ("one", "any", "several"):
        return [f"grids is {cls.grids!r}; it must be 'one', 'any' or 'several'"]
    return []


def _example(cls: type[Paradigm], options: dict[str, object]) -> tuple[Paradigm, Tensor, Condition, Tensor]:
    """A tiny instance, a batch of random tokens and conditions, and its loss on them (B,)."""
    paradigm = build(cls, **options)
    tokens, condition = example_batch(paradigm.space)
    return paradigm, tokens, condition, seeded_loss(paradigm, tokens, condition)


def check_shape(cls: type[Paradigm], **options: object) -> list[str]:
    """One value per image."""
    *_, loss = _example(cls, options)
    if loss.shape != (BATCH,):
        return [f"loss has shape {tuple(loss.shape)}; it must be one value per image, ({BATCH},)"]
    return []


def check_values(cls: type[Paradigm], **options: object) -> list[str]:
    """Finite; a density may make it negative."""
    *_, loss = _example(cls, options)
    return [] if torch.isfinite(loss).all() else ["loss is not finite on random tokens"]


def check_repetition(cls: type[Paradigm], **options: object) -> list[str]:
    """Random numbers come from torch's global generator alone."""
    paradigm, tokens, condition, loss = _example(cls, options)
    if not torch.equal(loss, seeded_loss(paradigm, tokens, condition)):
        return ["loss differs between two calls under the same torch seed"]
    return []


def check_modes(cls: type[Paradigm], **options: object) -> list[str]:
    """No dropout or batch statistics."""
    paradigm, tokens, condition, loss = _example(cls, options)
    if torch.isfinite(loss).all() and not torch.allclose(
        loss, seeded_loss(paradigm.eval(), tokens, condition), rtol=1e-5, atol=1e-6
    ):
        return ["loss differs between train() and eval() under one seed: dropout or batch statistics change what is trained"]
    return []


def check_division(cls: type[Paradigm], **options: object) -> list[str]:
    """Halves of a batch give what their images get in the whole, unless the loss says that it needs the whole."""
    if cls.whole_batch:
        return []
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
            "noise with the image as the leading axis, what a batch shares as a scalar, and mix no images, or say "
            "`whole_batch = True`"
        ]
    return []


def check_buffers(cls: type[Paradigm], **options: object) -> list[str]:
    """The optimizer alone changes what a checkpoint holds."""
    paradigm = build(cls, **options)
    before = {name: value.detach().clone() for name, value in [*paradigm.named_buffers(), *paradigm.named_parameters()]}
    paradigm.loss(*example_batch(paradigm.space))
    after = dict([*paradigm.named_buffers(), *paradigm.named_parameters()])
    if after.keys() != before.keys() or any(not torch.equal(value, before[name]) for name, value in after.items()):
        return ["loss changes buffers or parameters: averaged weights do not carry them, so training and sampling would differ"]
    return []


def check_scalars(cls: type[Paradigm], **options: object) -> list[str]:
    """What is logged are scalars."""
    paradigm = build(cls, **options)
    scalars = paradigm.loss(*example_batch(paradigm.space))[1]
    if not all(isinstance(value, Tensor) and value.ndim == 0 for value in scalars.values()):
        return ["the second return value of loss must map names to scalar tensors"]
    return []


def check_likelihood(cls: type[Paradigm], **options: object) -> list[str]:
    """A likelihood, where there is one, is finite, at least zero and per image."""
    paradigm = build(cls, **options)
    try:
        checked_nats(paradigm, *example_batch(paradigm.space))
    except ValueError as error:
        return [str(error)]
    return []
