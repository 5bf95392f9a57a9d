"""Training one ladder: a constant-rate trunk and a cooldown branch that ends at each budget.

Letters: B images of the global batch.

Lightning runs the loop, in one process or in one per device (bench/group.py). The budget is the clock: every step is billed by
the shapes that ran, the learning rate is a function of the FLOPs spent, and a branch stops at the step nearest to its budget. All
randomness of a step is a function of (seed, step).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
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
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bench import checkpoints, group
from bench.build import accelerate, build_meta, build_paradigm
from bench.conditioning import Condition, ConditionSpace
from bench.config import Run
from bench.data.cache import TrainingData, step_seed
from bench.division import Part, PartRandomness, micro_batches
from bench.flops import FlopMeter
from bench.group import GroupEnvironment
from bench.paradigm import Paradigm, TokenSpace
from bench.results import METRICS, append_line, read_lines, write_file, write_lines
from bench.weights_files import read_weights

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


def seed_draws(seed: int, device: torch.device) -> None:
    """What `torch.manual_seed` does for the CPU and one GPU; that also formats the stack for each kind of device that is not
    there, at every call (3 % of a small model's step)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class TrainingModule(L.LightningModule):
    """One paradigm, its optimizer and the FLOP clock."""

    def __init__(
        self, run: Run, paradigm: Paradigm, meter: FlopMeter, *, budget: float, stop_at: float, num_micro_batches: int = 1
    ) -> None:
        """budget: where a cooldown would end; stop_at: FLOPs at which this segment ends."""
        super().__init__()
        self.run, self.paradigm, self.meter = run, paradigm, meter
        self.budget, self.stop_at, self.num_micro_batches = budget, stop_at, num_micro_batches
        self.summed_loss: Tensor | float = 0.0
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

    def ends_step(self, batch_index: int) -> bool:
        """Whether the optimizer steps after this micro-batch."""
        return (batch_index + 1) % self.num_micro_batches == 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.num_micro_batches:
            return
        self.summed_loss = 0.0
        for parameters in self.trainer.optimizers[0].param_groups:
            parameters["lr"] = self.learning_rate(self.global_step)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean loss () of a part of a step's tokens and condition tokens, billed by the shapes that ran.

        Raises:
            FloatingPointError: when the loss is not finite, naming the step.
        """
        tokens, words = batch
        step, recipe, together = self.global_step, self.run.recipe, group.current()
        part = Part(
            together.rank * self.num_micro_batches + batch_idx % self.num_micro_batches, together.size * self.num_micro_batches
        )
        generator = torch.Generator().manual_seed(step_seed(self.run.seed, step, "dropout"))
        drop = torch.rand(recipe.batch_size, generator=generator) < recipe.condition_dropout
        condition = Condition.of(words).dropped(drop[part.rows(recipe.batch_size)].to(words.device))
        seed = step_seed(self.run.seed, step, "loss")
        seed_draws(seed, self.device)
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"),
            PartRandomness(part, len(words)) if part.count > 1 else contextlib.nullcontext(),
        ):
            loss, _ = self.paradigm.loss(tokens, condition)
        billed = self.meter.bill(len(words), seed)  # the other parts run the same shapes
        self.flops_spent += billed.dense * together.size
        self.flops_spent_causal += billed.causal * together.size
        mean = loss.mean()
        self.summed_loss = self.summed_loss + mean.detach()
        if self.ends_step(batch_idx):
            self._end_step(step, billed.dense * part.count)
        return mean

    def _end_step(self, step: int, step_flops: int) -> None:
        """Note the loss of the whole step, and stop when the next would lie further from the target than this one."""
        ends = self.flops_spent + step_flops / 2 > self.stop_at
        if (step + 1) % LOG_EVERY_STEPS == 0 or ends:  # reading the value waits for the device
            self.last_loss = group.current().mean(float(self.summed_loss) / self.num_micro_batches)
            if not math.isfinite(self.last_loss):
                raise FloatingPointError(
                    f"loss is {self.last_loss} at step {step}, learning rate {self.learning_rate(step):.3g}, "
                    f"{self.whereabouts(step)}"
                )
        if ends:
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
        write_lines(path, [line for line in read_lines(path, METRICS) if line["step"] <= last_step])


class MetricsWriter(Callback):
    """Appends one JSON line every LOG_EVERY_STEPS steps, flushed, tells the loggers, and reports to the launcher.

    The JSON lines are the record; what the loggers keep is written anew from them when a run goes on.
    """

    def __init__(self, path: Path, report: Callable[[Progress], None]) -> None:
        self.path, self.report = path, report
        self.started = time.perf_counter()
        shutil.rmtree(path.parent / "logs", ignore_errors=True)
        self.loggers = make_loggers(path.parent / "logs")
        for line in read_lines(path, METRICS):
            self._tell(line)

    def _tell(self, line: dict[str, Any]) -> None:
        for logger in self.loggers:
            logger.log_metrics({name: line[name] for name in ("loss", "learning_rate", "flops_spent")}, line["step"])

    def close(self) -> None:
        """Flush the loggers."""
        for logger in self.loggers:
            logger.save()
            logger.finalize("success")

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, TrainingModule)
        if not module.ends_step(batch_idx) or (trainer.global_step % LOG_EVERY_STEPS and not trainer.should_stop):
            return
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

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}")
        self.number = number


class CheckpointKeeper(Callback):
    """Writes a checkpoint every so often, and when a signal asks to stop, within one step.

    Lightning would save inside the signal handler, in the middle of a step; here the handler sets a flag.
    """

    ON_TIME = 1
    """Wish of a checkpoint; every signal in STOP_SIGNALS has a larger number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stopped_by = 0
        """The signal."""
        self._written = time.monotonic()
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Take the signals over; Lightning has set its own handlers before."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in STOP_SIGNALS}

    def _ask(self, number: int, frame: Any) -> None:
        self.stopped_by = number

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write when it is time in any process; the EMA's callback has run before."""
        assert isinstance(module, TrainingModule)
        if trainer.should_stop or not module.ends_step(batch_idx):
            return
        wish = self.stopped_by or (self.ON_TIME if time.monotonic() - self._written > CHECKPOINT_SECONDS else 0)
        wish = group.current().agree(wish)
        if not wish:
            return
        save_checkpoint(trainer, self.folder / f"{module.flops_spent}.ckpt")
        if group.current().first:
            checkpoints.prune(self.folder)
        self._written = time.monotonic()
        if wish > self.ON_TIME:
            self.stopped_by, trainer.should_stop = wish, True

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def save_checkpoint(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint in the first process; the others take part, as Lightning wants it."""
    if group.current().first:
        checkpoints.write(path, trainer.save_checkpoint)
    else:
        trainer.save_checkpoint(path)


class _Steps(IterableDataset[tuple[Tensor, Tensor]]):
    """This process's micro-batches from the step at which the trainer stands."""

    def __init__(self, data: TrainingData, run: Run, first_step: int, num_micro_batches: int) -> None:
        self.data, self.run, self.first_step, self.num_micro_batches = data, run, first_step, num_micro_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        together, count = group.current(), self.num_micro_batches
        for step in itertools.count(self.first_step):
            for index in range(count):
                part = Part(together.rank * count + index, together.size * count)
                yield self.data.batch(self.run.seed, step, self.run.recipe.batch_size, part)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of training: from a checkpoint (or the seed) until `stop_at` FLOPs are spent."""

    run: Run
    latents: Path
    """Folder of the latent cache."""
    space: TokenSpace
    conditions: ConditionSpace
    budget: float
    """Where the cooldown ends; infinity keeps the rate constant (a trunk)."""
    stop_at: float
    start: Path | None
    """Lightning checkpoint to continue from."""
    running: Path
    """Folder of this segment's own checkpoints, from the newest of which a killed one goes on."""
    checkpoint: Path | None = None
    """What to write at the end: a checkpoint to branch from."""
    weights: Path | None = None
    """What to write at the end: raw and EMA weights."""
    metrics: Path
    micro_batch: int | None = None
    """Most images at once on a device; None takes the device's whole share of a batch."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished branch reports."""

    flops_spent: int
    flops_spent_causal: int
    steps: int
    seconds: float
    loss: float


def train_segment(segment: Segment, report: Callable[[Progress], None], say: Callable[[str], None]) -> Trained:
    """Train a segment, in all processes of the group at once.

    Args:
        report: is told of the progress, in the first process.
        say: is told of a damaged checkpoint, in the first process.

    Raises:
        FloatingPointError: when the loss is not finite, naming the step.
        InterruptedTrainingError: when a signal stopped it; the same call goes on.
        ValueError: when the batch cannot be divided among the devices.
    """
    run, together = segment.run, group.current()
    count = micro_batches(run.recipe.batch_size, together.size, segment.micro_batch)
    data = TrainingData(segment.latents)
    paradigm = accelerate(build_paradigm(run, segment.space, segment.conditions))
    meter = FlopMeter(
        build_meta(run, segment.space, segment.conditions), segment.conditions.num_tokens, segment.conditions.feature_dim
    )
    meter.attach(paradigm)
    module = TrainingModule(run, paradigm, meter, budget=segment.budget, stop_at=segment.stop_at, num_micro_batches=count)
    average = ExponentialMovingAverage(paradigm, run.recipe.ema_relative_width)
    newest = together.share(checkpoints.newest_whole(segment.running, say) if together.first else None)
    start = segment.start
    if newest is not None and (start is None or int(newest.stem) > int(start.stem)):
        start = newest
    first_step = 0
    if start is not None:
        content = torch.load(start, weights_only=True, map_location="cpu")
        first_step = content["global_step"]
        module.seconds_before = content["segment_seconds"] if start == newest else 0.0

    def whereabouts(step: int) -> str:
        images = data.indices(run.seed, step, run.recipe.batch_size).tolist()
        last = checkpoints.newest_whole(segment.running, say) or start
        return f"last checkpoint {last or 'none'}, training images {', '.join(map(str, images))}"

    module.whereabouts = whereabouts
    keeper = CheckpointKeeper(segment.running)
    callbacks: list[Callback] = [average, keeper]
    if together.first:
        keep_lines(segment.metrics, first_step)
        writer = MetricsWriter(segment.metrics, report)
        callbacks.insert(1, writer)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_steps=-1,
            max_epochs=-1,
            accelerator="auto",
            devices=together.devices,
            num_nodes=together.nodes,
            strategy=DDPStrategy() if together.size > 1 else "auto",
            plugins=[GroupEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            accumulate_grad_batches=count,
            gradient_clip_val=run.recipe.gradient_clip,
            callbacks=callbacks,
        )
        loader = DataLoader(_Steps(data, run, first_step, count), batch_size=None, pin_memory=torch.cuda.is_available())
        try:
            trainer.fit(module, loader, ckpt_path=start, weights_only=True)
        finally:
            if together.first:
                writer.close()
        if keeper.stopped_by:
            raise InterruptedTrainingError(keeper.stopped_by, trainer.global_step)
        if segment.checkpoint is not None:
            save_checkpoint(trainer, segment.checkpoint)
    if together.first:
        if segment.weights is not None:
            _save_weights(paradigm, average, segment.weights)
        shutil.rmtree(segment.running, ignore_errors=True)
    return Trained(module.flops_spent, module.flops_spent_causal, trainer.global_step, module.seconds, module.last_loss)


def take_part(segment: Segment) -> None:
    """Train a segment as one of the processes that follow; the first one reports."""
    with contextlib.suppress(InterruptedTrainingError):
        train_segment(segment, lambda _: None, lambda _: None)


def _save_weights(paradigm: Paradigm, average: ExponentialMovingAverage, path: Path) -> None:
    """Raw and averaged parameters in one safetensors file."""
    names = [name for name, _ in paradigm.named_parameters()]
    content = {f"raw.{n}": p.detach().contiguous() for n, p in paradigm.named_parameters()}
    content |= {f"ema.{n}": a.contiguous() for n, a in zip(names, average.averages, strict=True)}
    write_file(path, lambda temporary: save_file(content, temporary))


def load_weights(paradigm: Paradigm, path: Path, ema: bool) -> Paradigm:
    """Put a finished run's weights into a freshly built paradigm; returns it in eval mode.

    Raises:
        ValueError: when the file is damaged, or holds another model's weights.
    """
    prefix = "ema." if ema else "raw."
    weights = read_weights(path)
    for name, parameter in paradigm.named_parameters():
        found = weights.get(prefix + name)
        if found is None or found.shape != parameter.shape:
            shape = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(f"{path} has {shape} for {prefix}{name}, not {tuple(parameter.shape)}; train the run again")
        parameter.data.copy_(found)
    return paradigm.eval().requires_grad_(False)
