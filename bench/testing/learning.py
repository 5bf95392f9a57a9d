"""Learn a few images, then sample them: what a wrong loss or a wrong sampler cannot do."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.paradigm import Paradigm
from bench.testing.example import BATCH, build, draw, example_batch

STEPS = (200, 400)
"""Training steps; a loss that has taught something, but not enough, after the first number is trained anew for the second."""
LEAST_PROMISING = 0.3
LEAST_NEAREST = 0.5
"""Share of the samples of a density, whose loss falls below 0, that must be nearest to their image: it is learnt slowly, and a
token drawn wide leads the next ones astray. A Gaussian mixture token by token reaches .62 after 200 steps and .75 after 400;
chance is 1 / 8."""
COPIES = 4
"""Of each image in a step, each with its own noise."""
RATE = 5e-3
SHORT = 20
"""Steps after which every parameter has had a gradient: some layers start at zero and hide others at first."""
LEAST_EXACT = {"codes": 0.95, "latents": 0.93}
"""Share of the codes, or of the images' variance, that must be right. After 200 steps, seed 0: built-ins, a steep schedule and an
adaptive loss .97 to 1.00; samplers that skip a trained block .91 and .92 (codes), .64 (latents); a network that is told the
noise .82; a flipped sign -12.7 (docs/log.md, 2026-11-21)."""


def learn(paradigm: Paradigm, tokens: Tensor, condition: Condition, steps: int) -> list[float]:
    """Train on copies of a batch (B, ...) by seeded Adam steps, the rate falling to zero; the mean loss before each step."""
    tokens, condition = _repeated(tokens, condition)
    optimizer = torch.optim.Adam(paradigm.parameters(), lr=RATE, fused=True)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 10, 2 * (1 - step / steps))
        torch.manual_seed(step)
        loss = paradigm.loss(tokens, condition)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(paradigm.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _repeated(tokens: Tensor, condition: Condition) -> tuple[Tensor, Condition]:
    """Copies of a batch, (COPIES B, ...)."""
    words = condition.tokens.repeat(COPIES, *[1] * (condition.tokens.ndim - 1))
    return tokens.repeat(COPIES, *[1] * (tokens.ndim - 1)), Condition(words, condition.null.repeat(COPIES))


def check_learning(cls: type[Paradigm], **options: object) -> list[str]:
    """Every parameter gets a gradient."""
    paradigm = build(cls, **options)
    tokens, condition = example_batch(paradigm.space)
    learn(paradigm, tokens, condition.dropped(torch.arange(BATCH) == BATCH - 1), SHORT)
    missing = [name for name, p in paradigm.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    return [f"parameters without gradient after training: {', '.join(missing)}"] if missing else []


def check_memory(cls: type[Paradigm], **options: object) -> list[str]:
    """What was learnt is what is sampled: 8 images, each for its condition."""
    for steps in STEPS:
        paradigm = build(cls, **options)
        tokens, condition = example_batch(paradigm.space)
        last = learn(paradigm, tokens, condition, steps)[-1]
        wanted, asked = _repeated(tokens, condition)
        exact, nearest = recalled(draw(paradigm.eval(), asked), wanted, tokens)
        if exact >= LEAST_EXACT[paradigm.reads] or (last < 0 and nearest >= LEAST_NEAREST):
            return []
        if exact < LEAST_PROMISING:
            break
    what = "codes" if paradigm.reads == "codes" else "variance"
    return [
        f"after learning {BATCH} images in {steps} steps it draws others: {exact:.0%} of the {what} is right, {nearest:.0%} "
        "of the samples are nearest to the image of their condition; its loss does not teach what its sampler needs, reads the "
        "token that it predicts, or its sampler does not follow what was trained"
    ]


def recalled(drawn: Tensor, wanted: Tensor, tokens: Tensor) -> tuple[float, float]:
    """How well drawn images (k B, ...) are the wanted ones (k B, ...) among B images (B, ...).

    Returns:
        the share of codes that are equal, or 1 less the median error over the images' variance; and the share of samples that are
        nearest to the wanted image.
    """
    if drawn.dtype == torch.int64:
        distances = (drawn[:, None] != tokens[None]).float().mean(2)
        exact = float((drawn == wanted).float().mean())
    else:
        distances = (drawn[:, None] - tokens[None]).square().flatten(2).mean(2)
        exact = 1 - float((drawn - wanted).square().flatten(1).mean(1).median() / tokens.var())
    nearest = tokens[distances.argmin(1)].flatten(1).eq(wanted.flatten(1)).all(1)
    return exact, float(nearest.float().mean())
