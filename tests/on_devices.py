"""One training in this process, or divided among several; importable, so that processes can be started on it."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import torch
from miniature import EXPERIMENT

from bench.config.run import Run
from bench.data.open import open_data
from bench.plan.cells import first_run
from bench.plan.machine import free_port
from bench.sweep.workers import start_server
from bench.train import checkpoint_callback, lightning_module
from bench.train.checkpoint_callback import InterruptedTrainingError
from bench.train.distributed import ALONE, ProcessGroup
from bench.train.loop import Segment, train_segment
from bench.train.metrics_callback import Progress

DATASET = open_data(EXPERIMENT.data)
METHODS = {method.name: method for method in EXPERIMENT.methods}


def make_run(paradigm: str) -> Run:
    """The paradigm's run of the miniature experiment, with batches of 8."""
    run = first_run(EXPERIMENT, METHODS[paradigm], EXPERIMENT.sizes[0], 10**9, DATASET)
    return replace(run, recipe=replace(run.recipe, batch_size=8))


def train_part(
    latents: Path,
    paradigm: str,
    root: Path,
    micro_batch: int | None,
    stop_at: float,
    signal_at: int | None,
    group: ProcessGroup = ALONE,
) -> None:
    """Train in this process as its group says, noting every step."""
    lightning_module.LOG_EVERY_STEPS = 1
    checkpoint_callback.CHECKPOINT_SECONDS = 1e9

    def report(progress: Progress) -> None:
        if progress.step == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)

    root.mkdir(exist_ok=True)
    part = Segment(
        run=make_run(paradigm),
        latents=latents,
        space=DATASET.space(METHODS[paradigm].tokenizer),
        conditions=DATASET.conditions,
        budget=stop_at,
        stop_at=stop_at,
        start=None,
        running=root / "running",
        weights=root / "weights.safetensors",
        metrics=root / "metrics.jsonl",
        micro_batch=micro_batch,
    )
    try:
        train_segment(part, report, lambda _: None, group)
    except InterruptedTrainingError as error:
        (root / f"interrupted-{group.rank}").write_text(str(error))


def process(rank: int, size: int, address: str, trainings: list[tuple[object, ...]]) -> None:
    torch.set_num_threads(1)
    group = ProcessGroup.join(rank, size, size, address)
    for arguments in trainings:
        train_part(*arguments, group=group)  # type: ignore[arg-type]
    torch.distributed.destroy_process_group()


def on_devices(size: int, *trainings: tuple[object, ...]) -> None:
    """One training after another, each given by its arguments, in as many processes."""
    context, address = start_server(), f"127.0.0.1:{free_port()}"
    processes = [context.Process(target=process, args=(rank, size, address, list(trainings))) for rank in range(size)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0] * size
