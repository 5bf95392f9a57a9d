"""Learn a few images, then sample them: what a wrong loss or a wrong sampler cannot do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.paradigm import Paradigm
from bench.testing.example import BATCH, build, draw, example_batch

STEPS = (200, 400)
"""Training steps; what has not learnt enough after the first number is trained anew for the second."""
LEAST_NEAREST = 0.375
"""Share of the samples that must be nearest to the image of their condition, 3 x chance. Latents are held to no more: honest
samplers of predicted noise multiply its errors where sampling begins, and a density is drawn with its spread."""
LEAST_EXACT = 0.95
"""Share of the codes that must be right where the loss fell to CONFIDENT of its start; smoothed labels, which leave it at .19,
rightly draw another code for one token in ten."""
CONFIDENT = 0.1
COPIES = 4
"""Of each image in a step, each with its own noise."""
RATE = 5e-3
SHORT = 20
"""Steps after which every parameter has had a gradient: some layers start at zero and hide others at first."""


def descend(
    paradigm: Paradigm, batch: Callable[[int], tuple[Tensor, Condition]], steps: int, *, rate: float = RATE
) -> list[float]:
    """Mean loss before each of `steps` seeded Adam steps on `batch(step)`, whose rate rises for 10 steps and ends at zero."""
    optimizer = torch.optim.Adam(paradigm.parameters(), lr=rate, fused=True)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10, 2 * (1 - step / steps))
        tokens, condition = batch(step)
        torch.manual_seed(step)
        loss = paradigm.loss(tokens, condition)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(paradigm.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def learn(paradigm: Paradigm, tokens: Tensor, condition: Condition, steps: int) -> list[float]:
    """The same on copies of one batch (B, ...)."""
    copies = _repeated(tokens, condition)
    return descend(paradigm, lambda step: copies, steps)


def _repeated(tokens: Tensor, condition: Condition) -> tuple[Tensor, Condition]:
    """Copies of a batch, (COPIES B, ...)."""
    rows = torch.arange(len(tokens)).repeat(COPIES)
    return tokens[rows], condition[rows]


def check_learning(cls: type[Paradigm], **options: object) -> list[str]:
    """Every parameter gets a gradient in some step: a loss with random masks may leave a table out in any one of them."""
    paradigm = build(cls, **options)
    tokens, condition = example_batch(paradigm.space)
    before = {name: value.detach().clone() for name, value in paradigm.named_parameters()}
    learn(paradigm, tokens, condition.dropped(torch.arange(BATCH) == BATCH - 1), SHORT)
    idle = [name for name, value in paradigm.named_parameters() if torch.equal(value, before[name])]
    return [f"parameters without gradient in {SHORT} steps: {', '.join(idle)}"] if idle else []


def check_memory(cls: type[Paradigm], **options: object) -> list[str]:
    """What was learnt is what is sampled: 8 images, each for its condition."""
    for steps in STEPS:
        paradigm = build(cls, **options)
        tokens, condition = example_batch(paradigm.space)
        losses = learn(paradigm, tokens, condition, steps)
        wanted, asked = _repeated(tokens, condition)
        drawn = draw(paradigm.eval(), asked)
        nearest, equal = share_nearest(drawn, wanted, tokens), float((drawn == wanted).float().mean())
        exact = paradigm.reads == "codes" and sum(losses[-10:]) / 10 < CONFIDENT * losses[0]
        if nearest >= LEAST_NEAREST and (equal >= LEAST_EXACT or not exact):
            return []
    codes = f", {equal:.0%} of the codes are right" if exact else ""
    return [
        f"after learning {BATCH} images in {steps} steps it draws others: {nearest:.0%} of the samples are nearest to the image "
        f"of their condition{codes}; its loss does not teach what its sampler needs, reads the token that it predicts, or its "
        "sampler does not follow what was trained"
    ]


def share_nearest(drawn: Tensor, wanted: Tensor, tokens: Tensor) -> float:
    """Share of drawn images (k B, ...) that are nearer to the wanted ones (k B, ...) than to any other of B images (B, ...)."""
    apart = drawn[:, None] != tokens[None] if drawn.dtype == torch.int64 else (drawn[:, None] - tokens[None]).square()
    found = tokens[apart.float().flatten(2).mean(2).argmin(1)]
    return float(found.flatten(1).eq(wanted.flatten(1)).all(1).float().mean())
