"""The probability flow: noise to data without noise on the way, in few evaluations (Song et al. 2021, section 4.3).

Letters: R rows, C channels.

A noisy row is x = cos(phi) clean + sin(phi) noise, and dx / dphi is the velocity (Salimans & Ho 2022, appendix D). Between
evaluations clean row and noise are taken as linear in phi: each step extrapolates them from the last two evaluations, and the
next evaluation corrects the step that led to it, at no cost. That is a second-order predictor and corrector of Adams, which
UniPC (Zhao et al. 2023) is in the logarithm of the signal-to-noise ratio; the angle stays finite at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SPACING = 1.5
"""Exponent of the spacing of angles, denser near the data. Measured on Gaussians of deviations 0.1 to 1.5, 8 steps, cosine
schedules shifted by 1 and 4: variances within 7 % at 1.5, off by up to 66 % at 1 (docs/log.md)."""


def flow_steps(signal_shares: Sequence[float], steps: int) -> list[int]:
    """Indices of the training steps to evaluate, ascending from 0 to the last: those whose angles lie nearest to evenly spaced
    numbers to the power SPACING.

    Args:
        signal_shares: abar after each training step, descending.
        steps: how many, from 2 to all.
    """
    angles = torch.tensor(signal_shares, dtype=torch.float64, device="cpu").sqrt().acos()
    even = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    wanted = angles[0] + (angles[-1] - angles[0]) * even**SPACING
    kept: list[int] = (angles[None] - wanted[:, None]).abs().argmin(1).tolist()
    for index in range(1, steps):  # none is evaluated twice
        kept[index] = max(kept[index], kept[index - 1] + 1)
    return [min(step, len(signal_shares) - steps + index) for index, step in enumerate(kept)]


def follow(estimate: Callable[[Tensor, int], Tensor], x: Tensor, signal_shares: Sequence[float]) -> Tensor:
    """Clean rows (R, ..., C) at the end of the flow from noise x (R, ..., C).

    Args:
        estimate: the clean rows meant by noisy rows at the index of a signal share; called once for each, last index first.
        signal_shares: of the evaluations, descending; the noise is that of the last one.
    """
    angles = [math.acos(math.sqrt(share)) for share in signal_shares]
    last = len(angles) - 1
    begin, before = x, x  # where the last step began, and what was estimated there
    for index in range(last, 0, -1):
        angle, target = angles[index], angles[index - 1]
        clean = estimate(x, index)
        now = torch.stack([clean, (x - math.cos(angle) * clean) / math.sin(angle)])
        ahead = now
        if index < last:
            x = begin + _moved((now + before) / 2, angles[index + 1], angle)
            ahead = now + (now - before) * (angle - target) / (2 * (angles[index + 1] - angle))
        begin, before = x, now
        x = begin + _moved(ahead, angle, target)
    return estimate(x, 0)


def _moved(pair: Tensor, start: float, end: float) -> Tensor:
    """How far one clean row and its noise, a pair (2, R, ..., C), move the noisy row (R, ..., C) between two angles."""
    return (math.cos(end) - math.cos(start)) * pair[0] + (math.sin(end) - math.sin(start)) * pair[1]
