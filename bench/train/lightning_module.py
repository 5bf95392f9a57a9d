"""One paradigm under Lightning: a step's loss, the learning rate, and the FLOP clock."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.config.run import Run
from bench.data.latents import Batch
from bench.paradigm import Paradigm
from bench.parametrization import parameter_groups
from bench.randomness import Part, PartRandomness, step_seed
from bench.train.billed_loss import BilledLoss
from bench.train.distributed import ALONE, ProcessGroup

LOG_EVERY_STEPS = 20
"""Reading the loss waits for the device, so that most steps do not."""


class TrainingModule(L.LightningModule):
    """One paradigm, its optimizer and the FLOP clock."""

    def __init__(
        self,
        run: Run,
        paradigm: Paradigm,
        billed_loss: BilledLoss,
        *,
        budget: float,
        stop_at: float,
        group: ProcessGroup = ALONE,
        num_micro_batches: int = 1,
    ) -> None:
        """budget: where a cooldown would end; stop_at: FLOPs at which this segment ends."""
        super().__init__()
        self.run, self.paradigm, self.billed_loss = run, paradigm, billed_loss
        self.budget, self.stop_at, self.group, self.num_micro_batches = budget, stop_at, group, num_micro_batches
        self.summed_loss: Tensor | float = 0.0
        self.flops_spent = 0
        self.flops_spent_causal = 0
        self.last_loss = float("nan")
        self.has_ended = False
        """Whether the step that ended last was the segment's last."""
        self.began, self.seconds_before = time.perf_counter(), 0.0
        self.describe_step: Callable[[int], str] = lambda step: ""
        """Which images a step saw and which checkpoint is the last, for an error."""

    @property
    def seconds(self) -> float:
        """Wall seconds of the segment, those before a kill included."""
        return self.seconds_before + time.perf_counter() - self.began

    def learning_rate(self, step: int) -> float:
        """Linear warm-up in steps, constant, then linear to zero over the last `cooldown` share of the budget."""
        recipe = self.run.recipe
        warm = min(1.0, (step + 1) / recipe.warmup_steps)
        left = max(0.0, 1 - self.flops_spent / self.budget)
        return self.run.learning_rate * warm * min(1.0, left / recipe.cooldown)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with a group of parameters for each of their scalings."""
        recipe = self.run.recipe
        groups = parameter_groups(
            self.paradigm, self.paradigm.scalings, rate=self.run.learning_rate, weight_decay=recipe.weight_decay
        )
        self.rate_multipliers = [group.pop("rate_multiplier") for group in groups]
        return torch.optim.AdamW(groups, betas=recipe.betas, fused=True)

    def ends_step(self, batch_index: int) -> bool:
        """Whether the optimizer steps after this micro-batch."""
        return (batch_index + 1) % self.num_micro_batches == 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.num_micro_batches:
            return
        self.summed_loss = 0.0
        groups = self.trainer.optimizers[0].param_groups
        for parameters, multiplier in zip(groups, self.rate_multipliers, strict=True):
            parameters["lr"] = self.learning_rate(self.global_step) * multiplier

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss () of a part of a step's images, billed by the products that ran.

        Raises:
            FloatingPointError: when the loss is not finite, naming the step.
        """
        tokens, condition_tokens, features = batch
        step, recipe, count = self.global_step, self.run.recipe, self.num_micro_batches
        part = Part(self.group.rank * count + batch_idx % count, self.group.size * count)
        generator = torch.Generator().manual_seed(step_seed(self.run.seed, step, "dropout"))
        drop = torch.rand(recipe.batch_size, generator=generator) < recipe.condition_dropout
        condition = Condition.of(condition_tokens, features)
        condition = condition.dropped(drop[part.rows(recipe.batch_size)].to(condition_tokens.device))
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"),
            PartRandomness(part, len(tokens)) if part.count > 1 else contextlib.nullcontext(),
        ):  # the other parts run the same shapes
            loss, billed = self.billed_loss(tokens, condition, step_seed(self.run.seed, step, "loss"))
        self.flops_spent += billed.dense * self.group.size
        self.flops_spent_causal += billed.causal * self.group.size
        mean = loss.mean()
        self.summed_loss = self.summed_loss + mean.detach()
        if self.ends_step(batch_idx):
            self._end_step(step, billed.dense * part.count)
        return mean

    def is_logged(self, steps: int) -> bool:
        """Whether the loss is read after so many steps: every so often, and at the segment's end."""
        return steps % LOG_EVERY_STEPS == 0 or self.has_ended

    def _end_step(self, step: int, step_flops: int) -> None:
        """Note the loss of the whole step, and stop when the next would lie further from the target than this one."""
        self.has_ended = self.flops_spent + step_flops / 2 > self.stop_at
        if self.is_logged(step + 1):
            self.last_loss = self.group.mean(float(self.summed_loss) / self.num_micro_batches)
            if not math.isfinite(self.last_loss):
                raise FloatingPointError(
                    f"loss is {self.last_loss} at step {step}, learning rate {self.learning_rate(step):.3g}, "
                    f"{self.describe_step(step)}"
                )
        if self.has_ended:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the FLOP clock, and the wall seconds of the segment so far."""
        checkpoint["flops_spent"] = [self.flops_spent, self.flops_spent_causal]
        checkpoint["segment_seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the FLOP clock, and Lightning's count of micro-batches, which may be others now."""
        self.flops_spent, self.flops_spent_causal = checkpoint["flops_spent"]
        done = checkpoint["global_step"] * self.num_micro_batches
        for counts in checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"].values():
            if isinstance(counts, dict):
                counts.update(dict.fromkeys(counts, done))
