"""Training one segment: from a checkpoint, or the seed, until its FLOPs are spent.

Lightning runs the loop, in one process or in one per device. The budget is the clock: every step is billed by the shapes that
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
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bench.conditioning import ConditionSpace
from bench.config.run import Run
from bench.data.latents import TrainingData
from bench.flops.meter import FlopMeter
from bench.model import build_meta, build_paradigm, compile_on_gpu, save_weights
from bench.paradigm import TokenSpace
from bench.randomness import Part, micro_batches
from bench.train import checkpoint_files, distributed
from bench.train.checkpoint_callback import CheckpointKeeper, InterruptedTrainingError, save_checkpoint
from bench.train.distributed import GroupEnvironment
from bench.train.ema import ExponentialMovingAverage
from bench.train.lightning_module import TrainingModule
from bench.train.metrics_callback import MetricsWriter, Progress, keep_lines


class _Steps(IterableDataset[tuple[Tensor, Tensor]]):
    """This process's micro-batches from the step at which the trainer stands."""

    def __init__(self, data: TrainingData, run: Run, first_step: int, num_micro_batches: int) -> None:
        self.data, self.run, self.first_step, self.num_micro_batches = data, run, first_step, num_micro_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        together, count = distributed.current(), self.num_micro_batches
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
    run, together = segment.run, distributed.current()
    count = micro_batches(run.recipe.batch_size, together.size, segment.micro_batch)
    data = TrainingData(segment.latents)
    paradigm = compile_on_gpu(build_paradigm(run, segment.space, segment.conditions))
    meter = FlopMeter(build_meta(run, segment.space, segment.conditions), segment.conditions)
    meter.attach(paradigm)
    module = TrainingModule(run, paradigm, meter, budget=segment.budget, stop_at=segment.stop_at, num_micro_batches=count)
    average = ExponentialMovingAverage(paradigm, run.recipe.ema_relative_width)
    newest = together.share(checkpoint_files.newest_whole(segment.running, say) if together.first else None)
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
        last = checkpoint_files.newest_whole(segment.running, say) or start
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
            save_weights(paradigm, average.averages, segment.weights)
        shutil.rmtree(segment.running, ignore_errors=True)
    return Trained(module.flops_spent, module.flops_spent_causal, trainer.global_step, module.seconds, module.last_loss)


def follow_segment(segment: Segment) -> None:
    """Train a segment as one of the processes that follow; the first one reports."""
    with contextlib.suppress(InterruptedTrainingError):
        train_segment(segment, lambda _: None, lambda _: None)
