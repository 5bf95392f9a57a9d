"""Small models on a CPU, of which laws need thousands of runs: the harness over a bare loop, and what compiling would gain."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.conditioning import ConditionSpace
from bench.config.experiment import Experiment, Method
from bench.config.run import Run
from bench.config.size import Size
from bench.data.base import TokenizedData
from bench.data.latents import fill_cache
from bench.model import build_meta
from bench.paradigm import TokenSpace
from bench.plan.cells import first_run
from bench.plan.cost import count_run
from bench.speed.timing import Spread, ratio, rounds, row, seconds
from bench.speed.training import bare_step
from bench.train.billed_loss import COMPILED_FLOPS
from bench.train.loop import Segment, train_segment
from bench.train.metrics_callback import Progress

WIDTHS, DEPTH, BATCH, HEAD_WIDTH = (16, 32, 64, 96), 4, 32, 32
IMAGES = 1024
FIRST_STEP, LAST_STEP = 20, 120
"""Between these the harness is compared with the bare loop; the steps before warm it up."""
ROUNDS = 3
COMPILED_WIDTHS = (16, 64, 96)
"""Each compilation takes half a minute."""
COMPILED_STEPS = 40
NOT_COMPILED = ("mar",)
"""Losses of random shapes."""
COMMIT = "47c04c4"
HARNESS_AT_COMMIT = {
    ("diffusion", 16): 1.176,
    ("diffusion", 32): 1.123,
    ("diffusion", 64): 1.108,
    ("diffusion", 96): 1.060,
    ("next-token", 16): 1.111,
    ("next-token", 32): 1.202,
    ("next-token", 64): 1.015,
    ("next-token", 96): 1.026,
    ("masked-token", 16): 1.012,
    ("masked-token", 32): 1.082,
    ("masked-token", 64): 1.040,
    ("masked-token", 96): 1.146,
    ("mar", 16): 1.060,
    ("mar", 32): 1.223,
    ("mar", 64): 1.049,
    ("mar", 96): 1.002,
}
"""Seconds of a step of the harness there over those of a bare step here, by method and width: medians of three rounds in turn on
two quiet hyperthreads of an EPYC (docs/log.md, 2026-11-22)."""


def small_run(experiment: Experiment, method: Method, width: int, dataset: TokenizedData) -> Run:
    """The experiment's run of a method at a width, in float32 on a few images."""
    recipe = replace(experiment.recipe, batch_size=BATCH, precision="fp32", num_training_images=IMAGES)
    size = Size(width=width, depth=DEPTH, num_heads=max(1, width // HEAD_WIDTH))
    return replace(first_run(experiment, method, size, 10**12, dataset), recipe=recipe)


def harness_seconds(run: Run, latents: Path, dataset: TokenizedData, flops_per_image: float) -> float:
    """Seconds of the same steps in the real training: data, EMA, logs and checkpoints included."""
    seen: list[Progress] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        segment = Segment(
            run=run,
            latents=latents,
            space=dataset.space(run.tokenizer),
            conditions=dataset.conditions,
            budget=float("inf"),
            stop_at=1.3 * LAST_STEP * run.recipe.batch_size * flops_per_image,
            start=None,
            running=folder / "running",
            metrics=folder / "metrics.jsonl",
        )
        train_segment(segment, seen.append, lambda _: None)
    warm = [progress for progress in seen if progress.step in (FIRST_STEP, LAST_STEP)]
    return warm[1].seconds - warm[0].seconds


def measure_overhead(experiment: Experiment, dataset: TokenizedData) -> Iterator[dict[str, Any]]:
    """Rows of the harness's seconds per step over those of a bare step, and of its speed over that of an earlier commit."""
    for method in experiment.methods:
        with tempfile.TemporaryDirectory() as name:
            latents, encoder = Path(name), dataset.encoder(method.tokenizer)
            fill_cache(latents, IMAGES, dataset.row_bytes(method.tokenizer), encoder, lambda _: None, chunk=dataset.chunk)
            for width in WIDTHS:
                run = small_run(experiment, method, width, dataset)
                space = dataset.space(run.tokenizer)
                cost = count_run(run, build_meta(run, space, dataset.conditions), dataset.conditions).dense
                step = bare_step(run, space, dataset.conditions)
                step(0)
                shares = []
                for _ in range(ROUNDS):
                    bare = seconds(lambda: [step(number) for number in range(FIRST_STEP, LAST_STEP)])  # noqa: B023
                    shares.append(harness_seconds(run, latents, dataset, cost) / bare)
                place = place_of(run)
                yield row("training", method.name, "harness over bare loop", Spread.of(shares), "1", "<= 1.03", **place)
                if (method.name, width) in HARNESS_AT_COMMIT and method.paradigm in NOT_COMPILED:
                    yield gain_row(method, run, shares)


def place_of(run: Run) -> dict[str, Any]:
    """Where a run's rows belong."""
    return {"size": run.size.name, "batch": BATCH, "dtype": "fp32"}


def gain_row(method: Method, run: Run, shares: list[float]) -> dict[str, Any]:
    """The row of the harness's speed over that at COMMIT, from its seconds per step over those of a bare step."""
    gain = Spread.of([HARNESS_AT_COMMIT[method.name, run.width] / share for share in shares])
    goal = ">= 1.6" if run.width <= 64 else ">= 1.4"
    return row("training", method.name, f"long run, steps/s over those at commit {COMMIT}", gain, "1", goal, **place_of(run))


def compiled(run: Run, space: TokenSpace, conditions: ConditionSpace) -> tuple[Callable[[int], None], float]:
    """A bare step whose loss is compiled as a whole, and the seconds until its first is done."""
    began = time.perf_counter()
    step = bare_step(run, space, conditions, compile_loss=True)
    for number in range(3):
        step(number)
    return step, time.perf_counter() - began


def measure_compiled(experiment: Experiment, dataset: TokenizedData) -> Iterator[dict[str, Any]]:
    """Rows of a bare step's seconds over those with a compiled loss, of the seconds of compiling, and of the speed of the harness
    in a run that is long enough to be compiled."""
    for method in experiment.methods:
        if method.paradigm in NOT_COMPILED:
            continue
        with tempfile.TemporaryDirectory() as name:
            latents, encoder = Path(name), dataset.encoder(method.tokenizer)
            fill_cache(latents, IMAGES, dataset.row_bytes(method.tokenizer), encoder, lambda _: None, chunk=dataset.chunk)
            for width in COMPILED_WIDTHS:
                run = small_run(experiment, method, width, dataset)
                space = dataset.space(run.tokenizer)
                cost = count_run(run, build_meta(run, space, dataset.conditions), dataset.conditions).dense
                plain = bare_step(run, space, dataset.conditions)
                try:
                    fast, spent = compiled(run, space, dataset.conditions)
                except Exception:  # no C++ compiler, or no headers of Python
                    yield row("training", method.name, "step over step with a compiled loss", None, "1", **place_of(run))
                    return
                taken = rounds(
                    {
                        "plain": lambda: [plain(number) for number in range(COMPILED_STEPS)],  # noqa: B023
                        "compiled": lambda: [fast(number) for number in range(COMPILED_STEPS)],  # noqa: B023
                    },
                    ROUNDS,
                )
                share = ratio(taken["plain"], taken["compiled"])
                yield row("training", method.name, "step over step with a compiled loss", share, "1", **place_of(run))
                yield row("training", method.name, "until a compiled loss has run", spent, "s", **place_of(run))
                long, shares = replace(run, flops_budget=round(2 * COMPILED_FLOPS)), []
                for _ in range(2):
                    bare = seconds(lambda: [plain(number) for number in range(FIRST_STEP, LAST_STEP)])  # noqa: B023
                    shares.append(harness_seconds(long, latents, dataset, cost) / bare)
                yield gain_row(method, run, shares)
