"""Training one ladder: a constant-rate trunk and a cooldown branch that ends at each budget.

Letters: B images of the global batch.

Lightning runs the loop. The budget is the clock: every step is billed by the shapes that ran, the learning rate is a function
of the FLOPs spent, and a branch stops at the step nearest to its budget. All randomness of a step is a function of (seed, step).
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bench import checkpoints
from bench.build import build_meta, build_paradigm
from bench.conditioning import Condition, ConditionSpace
from bench.config import Run
from bench.data.cache import TrainingData, step_seed
from bench.flops import FlopMeter
from bench.paradigm import Paradigm, TokenSpace
from bench.results import append_line, read_lines, write_file, write_lines

LOG_EVERY_STEPS = 20
CHECKPOINT_SECONDS = float(os.environ.get("PARADIGM_BENCH_CHECKPOINT_SECONDS", "60"))
"""Most work that a kill can cost; writing the default's checkpoint takes milliseconds."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def power_function_exponent(relative_width: float) -> float:
    """gamma of the EMA t^gamma whose relative standard deviation is given (Karras et al. 2024, equation 19).

    Raises:
        ValueError: when the width is not in (0, 0.28).
    """
    if not 0 < relative_width < 0.28:
        raise ValueError(f"ema_relative_width must be in (0, 0.28), not {relative_width}")
    low, high = 0.0, 1e6
    for _ in range(200):  # width(gamma) = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))) falls with gamma
        middle = (low + high) / 2
        width = ((middle + 1) / ((middle + 2) ** 2 * (middle + 3))) ** 0.5
        low, high = (middle, high) if width > relative_width else (low, middle)
    return (low + high) / 2


class TrainingModule(L.LightningModule):
    """One paradigm, its optimizer and the FLOP clock."""

    def __init__(self, run: Run, paradigm: Paradigm, meter: FlopMeter, budget: float, stop_at: float) -> None:
        """budget: where a cooldown would end; stop_at: FLOPs at which this segment ends."""
        super().__init__()
        self.run, self.paradigm, self.meter = run, paradigm, meter
        self.budget, self.stop_at = budget, stop_at
        self.flops_spent = 0
        self.flops_spent_causal = 0
        self.last_loss = float("nan")
        self.began, self.seconds_before = time.perf_counter(), 0.0
        self.whereabouts: Callable[[int], str] = lambda step: ""
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
        recipe = self.run.recipe
        decay = [p for p in self.paradigm.parameters() if p.ndim > 1]
        rest = [p for p in self.paradigm.parameters() if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.run.learning_rate, betas=recipe.betas, fused=True)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate(self.global_step)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean loss () of a step's tokens and condition tokens, billed by the shapes that ran.

        Raises:
            FloatingPointError: when the loss is not finite, naming the step.
        """
        tokens, words = batch
        step, recipe = self.global_step, self.run.recipe
        generator = torch.Generator().manual_seed(step_seed(self.run.seed, step, "dropout"))
        drop = torch.rand(len(words), generator=generator) < recipe.condition_dropout
        condition = Condition.of(words).dropped(drop.to(words.device))
        seed = step_seed(self.run.seed, step, "loss")
        torch.manual_seed(seed)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss, _ = self.paradigm.loss(tokens, condition)
        billed = self.meter.bill(len(words), seed)
        self.flops_spent += billed.dense
        self.flops_spent_causal += billed.causal
        mean = loss.mean()
        ends = self.flops_spent + billed.dense / 2 > self.stop_at
        if (step + 1) % LOG_EVERY_STEPS == 0 or ends:  # reading the value waits for the device
            self.last_loss = float(mean.detach())
            if not torch.isfinite(mean):
                raise FloatingPointError(
                    f"loss is {self.last_loss} at step {step}, learning rate {self.learning_rate(step):.3g}, "
                    f"{self.whereabouts(step)}"
                )
        if ends:
            self.trainer.should_stop = True
        return mean

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the FLOP clock, and the wall seconds of the segment so far."""
        checkpoint["flops_spent"] = [self.flops_spent, self.flops_spent_causal]
        checkpoint["segment_seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the FLOP clock."""
        self.flops_spent, self.flops_spent_causal = checkpoint["flops_spent"]


class ExponentialMovingAverage(Callback):
    """Power-function EMA of the paradigm's parameters, in one foreach call per step."""

    def __init__(self, paradigm: Paradigm, relative_width: float) -> None:
        self.exponent = power_function_exponent(relative_width)
        self.parameters: list[Tensor] = list(paradigm.parameters())
        self.averages = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        weight = 1 - (1 - 1 / max(1, trainer.global_step)) ** (self.exponent + 1)
        torch._foreach_lerp_(self.averages, self.parameters, weight)

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.averages, state["averages"], strict=True):
            mine.copy_(saved)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a training segment reports while it runs."""

    step: int
    flops_spent: int
    loss: float
    learning_rate: float
    seconds: float


def make_loggers(folder: Path) -> list[Logger]:
    """Lightning's loggers of a run: CSV and TensorBoard in the folder; Weights & Biases where WANDB_PROJECT names a project."""
    loggers: list[Logger] = [CSVLogger(folder, name="", version="csv"), TensorBoardLogger(folder, name="", version="tensorboard")]
    if os.environ.get("WANDB_PROJECT"):
        loggers.append(WandbLogger(name=folder.parent.name, save_dir=folder))
    return loggers


def keep_lines(path: Path, last_step: int) -> None:
    """Drop the lines of metrics.jsonl after a step, which will be trained again."""
    if path.exists():
        write_lines(path, [line for line in read_lines(path) if line["step"] <= last_step])


class MetricsWriter(Callback):
    """Appends one JSON line every LOG_EVERY_STEPS steps, flushed, tells the loggers, and reports to the launcher.

    The JSON lines are the record; what the loggers keep is written anew from them when a run goes on.
    """

    def __init__(self, path: Path, report: Callable[[Progress], None]) -> None:
        self.path, self.report = path, report
        self.started = time.perf_counter()
        shutil.rmtree(path.parent / "logs", ignore_errors=True)
        self.loggers = make_loggers(path.parent / "logs")
        for line in read_lines(path):
            self._tell(line)

    def _tell(self, line: dict[str, Any]) -> None:
        for logger in self.loggers:
            logger.log_metrics({name: line[name] for name in ("loss", "learning_rate", "flops_spent")}, line["step"])

    def close(self) -> None:
        """Flush the loggers."""
        for logger in self.loggers:
            logger.save()
            logger.finalize("success")

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % LOG_EVERY_STEPS and not trainer.should_stop:
            return
        assert isinstance(module, TrainingModule)
        now = Progress(
            trainer.global_step,
            module.flops_spent,
            module.last_loss,
            module.learning_rate(trainer.global_step - 1),
            time.perf_counter() - self.started,
        )
        line = {"step": now.step, "flops_spent": now.flops_spent, "loss": now.loss, "learning_rate": now.learning_rate}
        append_line(self.path, {**line, "segment_seconds": round(now.seconds, 3)})
        self._tell(line)
        self.report(now)


class InterruptedTrainingError(Exception):
    """A signal asked the training to stop; its checkpoint is on the disk."""


class CheckpointKeeper(Callback):
    """Writes a checkpoint every so often, and when a signal asks to stop, within one step.

    Lightning would save inside the signal handler, in the middle of a step; here the handler sets a flag.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stopping = False
        self._written = time.monotonic()
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Take the signals over; Lightning has set its own handlers before."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in STOP_SIGNALS}

    def _ask(self, number: int, frame: Any) -> None:
        self.stopping = True

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Write when it is time; the EMA's callback has run before."""
        assert isinstance(module, TrainingModule)
        if trainer.should_stop or not (self.stopping or time.monotonic() - self._written > CHECKPOINT_SECONDS):
            return
        checkpoints.write(self.folder / f"{module.flops_spent}.ckpt", trainer.save_checkpoint)
        checkpoints.prune(self.folder)
        self._written = time.monotonic()
        trainer.should_stop = self.stopping

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class _Steps(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches from the step at which the trainer stands."""

    def __init__(self, data: TrainingData, run: Run, first_step: int) -> None:
        self.data, self.run, self.first_step = data, run, first_step

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        step = self.first_step
        while True:
            yield self.data.batch(self.run.seed, step, self.run.recipe.batch_size)
            step += 1


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished branch reports."""

    flops_spent: int
    flops_spent_causal: int
    steps: int
    seconds: float
    loss: float


def train_segment(
    run: Run,
    data: TrainingData,
    space: TokenSpace,
    conditions: ConditionSpace,
    *,
    budget: float,
    stop_at: float,
    start: Path | None,
    running: Path,
    checkpoint: Path | None,
    weights: Path | None,
    metrics: Path,
    report: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Trained:
    """Train from a checkpoint (or the seed) until `stop_at` FLOPs are spent.

    Args:
        budget: where the cooldown ends; infinity keeps the rate constant (a trunk).
        start: Lightning checkpoint to continue from.
        running: folder of this segment's own checkpoints, from the newest of which a killed one goes on.
        checkpoint, weights: what to write at the end: a checkpoint to branch from, or raw and EMA weights.
        say: is told of a damaged checkpoint.

    Raises:
        FloatingPointError: when the loss is not finite, naming the step.
        InterruptedTrainingError: when a signal stopped it; the same call goes on.
    """
    paradigm = build_paradigm(run, space, conditions)
    meter = FlopMeter(build_meta(run, space, conditions), conditions.num_tokens, conditions.feature_dim)
    meter.attach(paradigm)
    module = TrainingModule(run, paradigm, meter, budget, stop_at)
    average = ExponentialMovingAverage(paradigm, run.recipe.ema_relative_width)
    newest = checkpoints.newest_whole(running, say)
    if newest is not None and (start is None or int(newest.stem) > int(start.stem)):
        start = newest
    first_step = 0
    if start is not None:
        content = torch.load(start, weights_only=True, map_location="cpu")
        first_step = content["global_step"]
        module.seconds_before = content["segment_seconds"] if start == newest else 0.0
    keep_lines(metrics, first_step)

    def whereabouts(step: int) -> str:
        images = data.indices(run.seed, step, run.recipe.batch_size).tolist()
        last = checkpoints.newest_whole(running, say) or start
        return f"last checkpoint {last or 'none'}, training images {', '.join(map(str, images))}"

    module.whereabouts = whereabouts
    writer, keeper = MetricsWriter(metrics, report), CheckpointKeeper(running)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_steps=-1,
            max_epochs=-1,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            gradient_clip_val=run.recipe.gradient_clip,
            callbacks=[average, writer, keeper],
        )
        loader = DataLoader(_Steps(data, run, first_step), batch_size=None)
        try:
            trainer.fit(module, loader, ckpt_path=start, weights_only=True)
        finally:
            writer.close()
        if keeper.stopping:
            raise InterruptedTrainingError(f"stopped by a signal at step {trainer.global_step}")
        if checkpoint is not None:
            checkpoints.write(checkpoint, trainer.save_checkpoint)
    if weights is not None:
        _save_weights(paradigm, average, weights)
    shutil.rmtree(running, ignore_errors=True)
    return Trained(module.flops_spent, module.flops_spent_causal, trainer.global_step, module.seconds, module.last_loss)


def _save_weights(paradigm: Paradigm, average: ExponentialMovingAverage, path: Path) -> None:
    """Raw and averaged parameters in one safetensors file."""
    names = [name for name, _ in paradigm.named_parameters()]
    content = {f"raw.{n}": p.detach().contiguous() for n, p in paradigm.named_parameters()}
    content |= {f"ema.{n}": a.contiguous() for n, a in zip(names, average.averages, strict=True)}
    write_file(path, lambda temporary: save_file(content, temporary))


def load_weights(paradigm: Paradigm, path: Path, ema: bool) -> Paradigm:
    """Put a finished run's weights into a freshly built paradigm; returns it in eval mode."""
    prefix = "ema." if ema else "raw."
    weights = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
    paradigm.load_state_dict(weights, strict=False)
    return paradigm.eval().requires_grad_(False)
