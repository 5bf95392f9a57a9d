"""What a training writes while it runs: metrics.jsonl, the loggers, the launcher's progress."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from bench.files import append_line, read_lines, write_lines
from bench.results.folder import STEP_KEYS
from bench.train.lightning_module import TrainingModule


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
        write_lines(path, [line for line in read_lines(path, STEP_KEYS) if line["step"] <= last_step])


class MetricsWriter(Callback):
    """Appends one JSON line for every step that the module logs, flushed, tells the loggers, and reports to the launcher.

    The JSON lines are the record; what the loggers keep is written anew from them when a run goes on.
    """

    def __init__(self, path: Path, report: Callable[[Progress], None]) -> None:
        self.path, self.report = path, report
        self.started = time.perf_counter()
        shutil.rmtree(path.parent / "logs", ignore_errors=True)
        self.loggers = make_loggers(path.parent / "logs")
        for line in read_lines(path, STEP_KEYS):
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
        if not module.ends_step(batch_idx) or not module.is_logged(trainer.global_step):
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
