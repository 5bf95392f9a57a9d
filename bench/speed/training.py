"""Training steps against the machine's own matrix products, and Lightning's loop against a bare one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.conditioning import Condition, ConditionSpace
from bench.config.experiment import Experiment, Size
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.data.latents import fill_cache
from bench.flops.meter import FlopMeter
from bench.model import build_meta, build_paradigm, compile_on_gpu, device_type
from bench.paradigm import TokenSpace
from bench.plan.cells import first_run
from bench.plan.cost import count_run
from bench.plan.machine import Machine
from bench.randomness import seed_draws, step_seed
from bench.speed.timing import Spread, ratio, rounds, row, seconds
from bench.train.loop import Segment, train_segment
from bench.train.metrics_callback import Progress

LARGER = ((Size(width=256, depth=6, num_heads=4), ">= 0.45"), (Size(width=384, depth=8, num_heads=6), ">= 0.6"))
"""Sizes beyond those of a CPU experiment, and their share of the matrix products in bf16 that a CPU should reach."""
BATCH = 64
FIRST_STEP, LAST_STEP = 20, 120
"""Between these the harness is compared with the bare loop; the steps before warm it up."""
OVERHEAD_ROUNDS = 5


def precise(run: Run) -> torch.dtype:
    """The type of a run's matrix products."""
    return torch.bfloat16 if run.recipe.precision == "bf16" else torch.float32


def products(width: int, rows: int, dtype: torch.dtype, least_flops: float = 0.0) -> tuple[Callable[[], object], float]:
    """The MLP's first product at a width, (rows, D) x (D, 4 D), so often that it takes least_flops or more, as a call, and its
    FLOPs: the best that a backbone could do."""
    left, right = (
        torch.randn(rows, width, device=device_type()).to(dtype),
        torch.randn(width, 4 * width, device=device_type()).to(dtype),
    )
    once = 2.0 * rows * width * 4 * width
    times = max(1, math.ceil(least_flops / once))
    return lambda: [left @ right for _ in range(times)], times * once


def bare_step(run: Run, space: TokenSpace, conditions: ConditionSpace) -> Callable[[int], None]:
    """A hand-written step by its number, on a batch that is there: loss, backward, clipping, AdamW."""
    batch = run.recipe.batch_size
    with torch.device(device_type()):
        paradigm = compile_on_gpu(build_paradigm(run, space, conditions))
        tokens, features = space.example(batch), space.features.example(batch) if space.features else None
        condition = Condition.of(conditions.example(batch), features)
    tokens = torch.randn_like(tokens) if space.kind == "latents" else tokens
    optimizer = torch.optim.AdamW(paradigm.parameters(), lr=1e-4, fused=True)

    def step(number: int) -> None:
        seed_draws(step_seed(run.seed, number, "loss"), next(paradigm.parameters()).device)
        with torch.autocast(device_type(), torch.bfloat16, enabled=run.recipe.precision == "bf16"):
            loss = paradigm.loss(tokens, condition)[0].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(paradigm.parameters(), run.recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def flops_of_step(run: Run, space: TokenSpace, conditions: ConditionSpace, number: int) -> int:
    """Training FLOPs per image of a step, by the products that its seed draws."""
    meter, batch = FlopMeter(build_meta(run, space, conditions), conditions, run.flop_rule), run.recipe.batch_size
    return meter.expected([step_seed(run.seed, number, "loss")], batch)[0].dense // batch


def measure_training(experiment: Experiment, dataset: TokenizedData, machine: Machine) -> Iterator[dict[str, Any]]:
    """Rows of FLOP/s, images/s and the share of the matrix products' rate, per method and size."""
    sizes = [(size, "", experiment.recipe.precision) for size in experiment.sizes]
    sizes += [(size, goal, "bf16") for size, goal in LARGER]
    for method in experiment.methods:
        for size, goal, precision in sizes:
            recipe = replace(experiment.recipe, batch_size=BATCH, precision=precision)
            run = replace(first_run(experiment, method, size, 10**12, dataset), recipe=recipe)
            space = dataset.space(run.tokenizer)
            per_image = flops_of_step(run, space, dataset.conditions, 0)
            product, flops = products(
                size.width, BATCH * (space.num_tokens + dataset.conditions.num_tokens), precise(run), BATCH * per_image / 4
            )
            step = bare_step(run, space, dataset.conditions)
            taken = rounds({"product": product, "step": lambda: step(0)})  # noqa: B023
            place: dict[str, Any] = {"size": size.name, "batch": BATCH, "dtype": run.recipe.precision}
            rate = Spread.of([BATCH * per_image / s for s in taken["step"]])
            yield row("training", method.name, "training rate", rate, "FLOP/s", **place)
            yield row("training", method.name, "images", Spread.of([BATCH / s for s in taken["step"]]), "images/s", **place)
            share = ratio(taken["product"], taken["step"], BATCH * per_image / flops)
            limit = goal if machine.device == "cpu" else ""
            yield row("training", method.name, "share of matrix products' rate", share, "1", limit, **place)


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
    """Rows of the harness's seconds per step over those of the bare step, at the experiment's smallest size."""
    num = 1024
    for method in experiment.methods:
        recipe = replace(experiment.recipe, num_training_images=num)
        run = replace(first_run(experiment, method, experiment.sizes[0], 10**12, dataset), recipe=recipe)
        space = dataset.space(run.tokenizer)
        cost = count_run(run, build_meta(run, space, dataset.conditions), dataset.conditions).dense
        step = bare_step(run, space, dataset.conditions)
        step(0)
        with tempfile.TemporaryDirectory() as name:
            encoder = dataset.encoder(method.tokenizer)
            fill_cache(Path(name), num, dataset.row_bytes(method.tokenizer), encoder, lambda _: None, chunk=dataset.chunk)
            shares = []
            for _ in range(OVERHEAD_ROUNDS):
                bare = seconds(lambda: [step(number) for number in range(FIRST_STEP, LAST_STEP)])  # noqa: B023
                shares.append(harness_seconds(run, Path(name), dataset, cost) / bare)
        place: dict[str, Any] = {"size": run.size.name, "batch": run.recipe.batch_size, "dtype": run.recipe.precision}
        yield row("training", method.name, "harness over bare loop", Spread.of(shares), "1", "<= 1.03", **place)
