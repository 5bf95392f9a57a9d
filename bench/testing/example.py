"""What the checks run on: a tiny model, random tokens and conditions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, ConditionSpace
from bench.paradigm import FeatureSpace, Paradigm, TokenSpace

BATCH = 8
BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
CONDITIONS = ConditionSpace(num_tokens=3, vocabulary=11)
SPACES = {
    "latents": TokenSpace(kind="latents", grid=3, channels=4),
    "codes": TokenSpace(kind="codes", grid=3, vocabulary=32),
}
"""Of one grid, by what a paradigm reads."""
SCALES = TokenSpace(
    kind="codes",
    grid=4,
    vocabulary=32,
    scales=(1, 2, 4),
    code_vectors=torch.randn(32, 3, generator=torch.Generator("cpu").manual_seed(0), device="cpu"),
)


def example_space(cls: type[Paradigm]) -> TokenSpace:
    """A small space of tokens that a paradigm takes, by what it declares."""
    space = SCALES if cls.grids == "several" else SPACES[cls.reads]
    return replace(space, features=FeatureSpace(grid=space.grid, channels=6, flops=1000)) if cls.reads_features else space


def example_batch(space: TokenSpace, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, Condition]:
    """Random tokens (B, N, C) or (B, N) and conditions of a space."""
    generator = torch.Generator().manual_seed(seed)
    tokens = space.example(batch, generator)
    words = torch.randint(1, CONDITIONS.vocabulary, (batch, CONDITIONS.num_tokens), generator=generator)
    return tokens, Condition.of(words, space.features.example(batch, generator) if space.features else None)


def build(cls: type[Paradigm], **options: object) -> Paradigm:
    """A tiny seeded instance."""
    torch.manual_seed(0)
    return cls(BACKBONE, example_space(cls), CONDITIONS, **options)


def seeded_loss(paradigm: Paradigm, tokens: Tensor, condition: Condition, seed: int = 0) -> Tensor:
    """The loss (B,) of tokens (B, ...) under a seed."""
    torch.manual_seed(seed)
    return paradigm.loss(tokens, condition)[0]


def draw(paradigm: Paradigm, condition: Condition, *, guidance: float = 1.0, seed: int = 0, steps: int | None = None) -> Tensor:
    """Samples (B, N, C) or (B, N) with a seeded generator."""
    with torch.no_grad():
        return paradigm.sample(
            condition, steps=steps, guidance=guidance, temperature=1.0, generator=torch.Generator().manual_seed(seed)
        )


def shake(paradigm: Paradigm, seed: int = 3) -> None:
    """Add noise to every parameter: layers that start at zero would hide what the network reads."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in paradigm.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def takes_guidance(paradigm: Paradigm, condition: Condition) -> bool:
    """Whether the sampler takes a guidance other than 1; one that was trained with its guidance may refuse by ValueError."""
    try:
        draw(paradigm, condition[:1], guidance=2.0)
    except ValueError:
        return False
    return True
