"""The power-function average of a paradigm's parameters (Karras et al. 2024)."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bench.paradigm import Paradigm
from bench.train.lightning_module import TrainingModule


def power_function_exponent(relative_width: float) -> float:
    """gamma of the EMA t^gamma whose relative standard deviation is given (Karras et al. 2024, equation 19).

    Raises:
        ValueError: when the width is not in (0, 0.28).
    """
    if not 0 < relative_width < 0.28:
        raise ValueError(f"ema_relative_width must be in (0, 0.28), not {relative_width}")
    t = relative_width**-2  # (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = 1 / t, multiplied out (algorithm 2)
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


class ExponentialMovingAverage(Callback):
    """Power-function EMA of the paradigm's parameters, in one foreach call per step."""

    def __init__(self, paradigm: Paradigm, relative_width: float) -> None:
        self.exponent = power_function_exponent(relative_width)
        self.parameters: list[Tensor] = list(paradigm.parameters())
        self.averages = [p.detach().clone() for p in self.parameters]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Follow the parameters to their device."""
        self.averages = [mine.to(p.device) for mine, p in zip(self.averages, self.parameters, strict=True)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step, counted from 1."""
        weight = 1 - (1 - 1 / max(1, step)) ** (self.exponent + 1)
        torch._foreach_lerp_(self.averages, self.parameters, weight)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, TrainingModule)
        if module.ends_step(batch_idx):
            self.update(trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.averages, state["averages"], strict=True):
            mine.copy_(saved)
