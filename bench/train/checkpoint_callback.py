"""When a training writes checkpoints: every so often, and within a step of a signal."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from bench.results.folder import checkpoint_path
from bench.train import checkpoint_files
from bench.train.distributed import ProcessGroup
from bench.train.lightning_module import TrainingModule

CHECKPOINT_SECONDS = 60.0
"""Most work that a kill can cost, unless PARADIGM_BENCH_CHECKPOINT_SECONDS says otherwise; writing a checkpoint of the default
experiment takes milliseconds."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


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

    def __init__(self, folder: Path, group: ProcessGroup) -> None:
        self.folder, self.group = folder, group
        self.every_seconds = float(os.environ.get("PARADIGM_BENCH_CHECKPOINT_SECONDS", CHECKPOINT_SECONDS))
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
        wish = self.stopped_by or (self.ON_TIME if time.monotonic() - self._written > self.every_seconds else 0)
        wish = self.group.agree(wish)
        if not wish:
            return
        save_checkpoint(trainer, checkpoint_path(self.folder, module.flops_spent), self.group)
        if self.group.first:
            checkpoint_files.prune(self.folder)
        self._written = time.monotonic()
        if wish > self.ON_TIME:
            self.stopped_by, trainer.should_stop = wish, True

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def save_checkpoint(trainer: L.Trainer, path: Path, group: ProcessGroup) -> None:
    """Write a checkpoint in the group's first process; the others take part, as Lightning wants it."""
    if group.first:
        checkpoint_files.write(path, trainer.save_checkpoint)
    else:
        trainer.save_checkpoint(path)
