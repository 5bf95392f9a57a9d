"""Training steps against the machine's own matrix products, and Lightning's loop against a bare one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from bench.conditioning import Condition, ConditionSpace
from bench.config.experiment import Experiment, Size
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.flops.meter import FlopMeter
from bench.model import build_meta, build_paradigm, compile_on_gpu, device_type
from bench.paradigm import TokenSpace
from bench.plan.cells import first_run
from bench.plan.machine import Machine
from bench.randomness import seed_draws, step_seed
from bench.speed.timing import Spread, ratio, rounds, row

LARGER = ((Size(width=256, depth=6, num_heads=4), ">= 0.45"), (Size(width=384, depth=8, num_heads=6), ">= 0.6"))
"""Sizes beyond those of a CPU experiment, and their share of the matrix products in bf16 that a CPU should reach."""
BATCH = 64
PRECISION_WIDTHS, PRECISION_DEPTH = (64, 128, 256, 384), 2


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


def bare_step(run: Run, space: TokenSpace, conditions: ConditionSpace, *, compile_loss: bool = False) -> Callable[[int], None]:
    """A hand-written step by its number, on a batch that is there: loss, backward, clipping, AdamW."""
    batch = run.recipe.batch_size
    with torch.device(device_type()):
        paradigm = compile_on_gpu(build_paradigm(run, space, conditions))
        tokens, features = space.example(batch), space.features.example(batch) if space.features else None
        condition = Condition.of(conditions.example(batch), features)
    tokens = torch.randn_like(tokens) if space.kind == "latents" else tokens
    optimizer = torch.optim.AdamW(paradigm.parameters(), lr=1e-4, fused=True)
    loss_of = torch.compile(paradigm.loss, dynamic=False) if compile_loss else paradigm.loss

    def step(number: int) -> None:
        seed_draws(step_seed(run.seed, number, "loss"), next(paradigm.parameters()).device)
        with torch.autocast(device_type(), torch.bfloat16, enabled=run.recipe.precision == "bf16"):
            loss = loss_of(tokens, condition)[0].mean()
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


def measure_precision(experiment: Experiment, dataset: TokenizedData) -> Iterator[dict[str, Any]]:
    """Rows of a step's seconds in fp32 over those in bf16, per method and width; the plan's rule is a width from which bf16 is
    used."""
    for method in experiment.methods:
        space = dataset.space(method.tokenizer)
        for width in PRECISION_WIDTHS:
            size = Size(width=width, depth=PRECISION_DEPTH, num_heads=width // 64)
            run, steps = first_run(experiment, method, size, 10**12, dataset), dict[str, Callable[[], object]]()
            for precision in ("fp32", "bf16"):
                recipe = replace(experiment.recipe, batch_size=BATCH, precision=precision)
                steps[precision] = partial(bare_step(replace(run, recipe=recipe), space, dataset.conditions), 0)
            taken = rounds(steps, repeats=5)
            place: dict[str, Any] = {"size": size.name, "batch": BATCH}
            yield row("training", method.name, "fp32 step over bf16 step", ratio(taken["fp32"], taken["bf16"]), "1", **place)
