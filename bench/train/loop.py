"""Training one segment: from a checkpoint, or the seed, until its FLOPs are spent.

Lightning runs the loop, in one process or in one per device. The budget is the clock: every step is billed by the products that
ran, the learning rate is a function of the FLOPs spent, and a branch stops at the step nearest to its budget. All randomness of a
step is a function of (seed, step).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, IterableDataset

from bench.conditioning import ConditionSpace
from bench.config.run import Run
from bench.data.latents import Batch, TrainingData
from bench.data.stream import training_images
from bench.flops.meter import FlopMeter
from bench.model import build_meta, build_paradigm, compile_on_gpu, device_type, save_weights
from bench.paradigm import TokenSpace
from bench.randomness import Part, micro_batches
from bench.train import checkpoint_files
from bench.train.billed_loss import BilledLoss, repays
from bench.train.checkpoint_callback import CheckpointKeeper, InterruptedTrainingError, save_checkpoint
from bench.train.distributed import ALONE, GroupEnvironment, ProcessGroup
from bench.train.ema import ExponentialMovingAverage
from bench.train.lightning_module import TrainingModule
from bench.train.metrics_callback import MetricsWriter, Progress, keep_lines


class _Steps(IterableDataset[Batch]):
    """This process's micro-batches from the step at which the trainer stands."""

    def __init__(self, data: TrainingData, run: Run, group: ProcessGroup, first_step: int, num_micro_batches: int) -> None:
        self.data, self.run, self.group = data, run, group
        self.first_step, self.num_micro_batches = first_step, num_micro_batches

    def __iter__(self) -> Iterator[Batch]:
        count = self.num_micro_batches
        for step in itertools.count(self.first_step):
            for index in range(count):
                part = Part(self.group.rank * count + index, self.group.size * count)
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


def train_segment(
    segment: Segment, report: Callable[[Progress], None], log: Callable[[str], None], group: ProcessGroup = ALONE
) -> Trained:
    """Train a segment, in all processes of a group at once.

    Args:
        report: is told of the progress, in the first process.
        log: is told of a damaged checkpoint, in the first process.
        group: this process among those that train.

    Raises:
        FloatingPointError: when the loss is not finite, naming the step.
        InterruptedTrainingError: when a signal stopped it; the same call goes on.
        ValueError: when the batch cannot be divided among the devices.
    """
    run = segment.run
    count = micro_batches(run.recipe.batch_size, group.size, segment.micro_batch)
    data = training_images(segment.latents)
    paradigm = compile_on_gpu(build_paradigm(run, segment.space, segment.conditions))
    meter = FlopMeter(build_meta(run, segment.space, segment.conditions), segment.conditions, run.flop_rule)
    billed_loss = BilledLoss(run, paradigm, meter, compiles=device_type() == "cpu" and group.size * count == 1 and repays(run))
    module = TrainingModule(
        run, paradigm, billed_loss, budget=segment.budget, stop_at=segment.stop_at, group=group, num_micro_batches=count
    )
    average = ExponentialMovingAverage(paradigm, run.recipe.ema_relative_width)
    newest = group.share(checkpoint_files.newest_whole(segment.running, log) if group.first else None)
    start = segment.start
    if newest is not None and (start is None or int(newest.stem) > int(start.stem)):
        start = newest
    first_step = 0
    if start is not None:
        content = torch.load(start, weights_only=True, map_location="cpu")
        first_step = content["global_step"]
        module.seconds_before = content["segment_seconds"] if start == newest else 0.0

    def describe_step(step: int) -> str:
        images = data.indices(run.seed, step, run.recipe.batch_size).tolist()
        last = checkpoint_files.newest_whole(segment.running, log) or start
        return f"last checkpoint {last or 'none'}, training images {', '.join(map(str, images))}"

    module.describe_step = describe_step
    keeper = CheckpointKeeper(segment.running, group)
    callbacks: list[Callback] = [average, keeper]
    with contextlib.ExitStack() as closing:
        if group.first:
            keep_lines(segment.metrics, first_step)
            writer = MetricsWriter(segment.metrics, report)
            closing.callback(writer.close)
            callbacks.insert(1, writer)
        steps = _Steps(data, run, group, first_step, count)
        with _silent_lightning():
            trainer = _make_trainer(group, count, run.recipe.gradient_clip, callbacks)
            loader = DataLoader(steps, batch_size=None, pin_memory=torch.cuda.is_available())
            trainer.fit(module, loader, ckpt_path=start, weights_only=True)
            if keeper.stopped_by:
                raise InterruptedTrainingError(keeper.stopped_by, trainer.global_step)
            if segment.checkpoint is not None:
                save_checkpoint(trainer, segment.checkpoint, group)
    if group.first:
        if segment.weights is not None:
            save_weights(paradigm, average.averages, segment.weights)
        shutil.rmtree(segment.running, ignore_errors=True)
    return Trained(module.flops_spent, module.flops_spent_causal, trainer.global_step, module.seconds, module.last_loss)


def _make_trainer(group: ProcessGroup, num_micro_batches: int, gradient_clip: float, callbacks: list[Callback]) -> L.Trainer:
    """Lightning's loop without its own progress, loggers and checkpoints."""
    return L.Trainer(
        max_steps=-1,
        max_epochs=-1,
        accelerator="auto",
        devices=group.devices,
        num_nodes=group.nodes,
        strategy=DDPStrategy() if group.size > 1 else "auto",
        plugins=[GroupEnvironment(group)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        accumulate_grad_batches=num_micro_batches,
        gradient_clip_val=gradient_clip,
        callbacks=callbacks,
    )


@contextlib.contextmanager
def _silent_lightning() -> Iterator[None]:
    """Lightning's advice is for its own users."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def follow(group: ProcessGroup) -> None:
    """Take part in the training of every segment that the group's first process shares, which alone reports; then leave."""

    def train(segment: Segment) -> None:
        with contextlib.suppress(InterruptedTrainingError):
            train_segment(segment, lambda _: None, lambda _: None, group)

    group.follow(train)
