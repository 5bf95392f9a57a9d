"""From an experiment and a budget to the list of runs, their counted FLOPs, steps and estimated hours. Trains nothing."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import pandas as pd
import torch

from bench.config.experiment import Experiment, Method, Size
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.model import build_meta
from bench.plan.calibrate import CALIBRATION_WIDTH, measure_speed, precision_note
from bench.plan.cells import cell_run, counting, grid_cells
from bench.plan.choices import Choice, explain
from bench.plan.company import kept_speed
from bench.plan.cost import RunCost, check_sampler
from bench.plan.ladder import Climber, rounded_down
from bench.plan.machine import Machine, check_memory, device_memory, share_devices, this_machine, worker_bytes
from bench.processor import keep_memory
from bench.progress import format_hours
from bench.randomness import micro_batches
from bench.registry import load
from bench.results.columns import PLAN_COLUMNS
from bench.results.identity import Identity

MIN_STEPS = 50
"""Fewer steps cannot meet the tolerance: the last one may miss by half a step."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run with its counted cost."""

    run: Run
    method: Method
    num_params: int
    flops_per_image: float
    flops_per_image_causal: float
    flops_per_second: float
    num_training_images: int
    loss_unit: str
    extrapolated: tuple[str, ...] = ()
    """Choices outside the range of the law that made them."""

    @property
    def steps(self) -> int:
        """Optimizer steps that the budget buys."""
        return round(self.run.flops_budget / (self.flops_per_image * self.run.recipe.batch_size))

    def row(self, trunk_flops: float) -> dict[str, Any]:
        """Row of plan.csv; its hours hold the trunk beyond the rung before, at trunk_flops, and its own cooldown."""
        run = self.run
        images = self.steps * run.recipe.batch_size
        flops = run.branch_flops - trunk_flops + run.cooldown_flops
        return {
            "run_id": run.run_id,
            "trunk_id": run.trunk_id,
            "method": run.method,
            "paradigm": run.paradigm,
            "plugin": run.plugin,
            "tokenizer": f"{run.tokenizer}@{run.tokenizer_hash}",
            "width": run.width,
            "depth": run.depth,
            "num_params": self.num_params,
            "seed": run.seed,
            "learning_rate": run.learning_rate,
            "flops_budget": run.flops_budget,
            "flops_per_image": round(self.flops_per_image),
            "flops_per_image_causal": round(self.flops_per_image_causal),
            "batch_size": run.recipe.batch_size,
            "steps": self.steps,
            "images_seen": images,
            "epochs": round(images / self.num_training_images, 3),
            "hours": round(flops / self.flops_per_second / 3600, 5),
            "dtype": run.recipe.precision,
            "flop_rule": run.flop_rule,
            "loss_unit": self.loss_unit,
            "extrapolated": " ".join(self.extrapolated),
        }


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment at a budget, grouped by trunk."""

    experiment: Experiment
    budget: int
    runs: tuple[PlannedRun, ...]
    machine: Machine
    row_bytes: dict[str, int]
    """What one image takes in each tokenizer's latent cache."""
    choices: tuple[Choice, ...] = ()
    """What was chosen, and the law that chose it."""
    precision_note: str = ""
    """What the calibration says against the runs' precision, as a sentence."""
    up_to: float = math.inf
    """Training FLOPs above which runs are left for later, so that they can be forecast from those below."""

    def limited(self, up_to: float) -> Plan:
        """The same plan of which only runs up to so many training FLOPs are done now.

        Raises:
            ValueError: when that leaves none.
        """
        lowest = min(planned.run.flops_budget for planned in self.runs)
        if up_to < lowest:
            raise ValueError(f"UP_TO={up_to:.3g} leaves no run; the lowest rung has {lowest:.3g} training FLOPs")
        return replace(self, up_to=up_to)

    @cached_property
    def asked(self) -> frozenset[str]:
        """run_ids of the runs that are done now."""
        return frozenset(planned.run.run_id for planned in self.runs if planned.run.flops_budget <= self.up_to)

    @property
    def missing_tokenizers(self) -> list[str]:
        """Tokenizers whose weights are not on this machine."""
        return sorted({p.run.tokenizer for p in self.runs if not p.run.tokenizer_hash})

    @cached_property
    def cached(self) -> dict[int, list[str]]:
        """The latent caches that its runs read: tokenizers, sorted, by the number of training images."""
        found: dict[int, set[str]] = {}
        for planned in self.runs:
            found.setdefault(planned.num_training_images, set()).add(planned.run.tokenizer)
        return {num: sorted(names) for num, names in sorted(found.items())}

    @property
    def cache_bytes(self) -> dict[str, int]:
        """What each tokenizer's latent caches take on disk."""
        return {
            name: row * sum(num for num, names in self.cached.items() if name in names) for name, row in self.row_bytes.items()
        }

    @cached_property
    def trunks(self) -> dict[str, list[PlannedRun]]:
        """Runs by trunk_id, budgets ascending."""
        groups: dict[str, list[PlannedRun]] = {}
        for planned in self.runs:
            groups.setdefault(planned.run.trunk_id, []).append(planned)
        return {name: sorted(group, key=lambda p: p.run.flops_budget) for name, group in groups.items()}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of plan.csv."""
        rows = []
        for group in self.trunks.values():
            before = [0.0, *(planned.run.branch_flops for planned in group)]
            rows += [planned.row(flops) for planned, flops in zip(group, before, strict=False)]
        return rows

    @cached_property
    def frame(self) -> pd.DataFrame:
        """plan.csv."""
        return pd.DataFrame(self.rows, columns=list(PLAN_COLUMNS))

    @property
    def total_flops(self) -> float:
        """Training FLOPs of all runs: every trunk to its last branch and every cooldown."""
        groups = self.trunks.values()
        return sum(group[-1].run.branch_flops + sum(p.run.cooldown_flops for p in group) for group in groups)

    @property
    def total_hours(self) -> float:
        """Training hours on this machine with all its workers busy, of the runs up to `up_to`."""
        return self.hours(self.asked)

    def hours(self, run_ids: Collection[str]) -> float:
        """Training hours on this machine with all its workers busy, of these runs."""
        return float(self.frame["hours"][self.frame["run_id"].isin(run_ids)].sum()) / self.machine.num_workers

    @cached_property
    def identity(self) -> Identity:
        """What a results folder belongs to."""
        experiment = self.experiment
        return Identity(
            name=experiment.name,
            budget=self.budget,
            data=experiment.data,
            methods={method.name: method for method in experiment.methods},
            evaluation=experiment.evaluation,
            runs={planned.run.run_id: planned.run for planned in self.runs},
        )

    def check_hours(self, max_hours: float, missing: Collection[str]) -> None:
        """Refuse a sweep whose missing runs, by run_id, this machine cannot finish in time.

        Raises:
            ValueError: naming the estimate, the largest budget that fits, and what overrides it.
        """
        hours = self.hours(missing)
        if hours > max_hours:
            fits = rounded_down(self.budget * max_hours / hours)
            more = "more " if len(missing) < len(self.asked) else ""
            raise ValueError(
                f"BUDGET={self.budget:.3g} needs about {format_hours(hours)} {more}of training on this machine "
                f"({self.machine.device}, {self.machine.num_workers} at a time), more than MAX_HOURS={max_hours:g}; the largest "
                f"budget that fits is about BUDGET={fits:.2g}; MAX_HOURS=... overrides"
            )


def make_plan(experiment: Experiment, budget: int, dataset: TokenizedData, machine: Machine | None = None) -> Plan:
    """Count every run of the experiment and calibrate this machine's speed.

    Raises:
        ValueError: for an unknown paradigm, impossible options, a model that no device holds, a batch that the devices cannot
            share equally, or a budget that a ladder does not reach or whose lowest rung has too few steps.
    """
    machine = this_machine() if machine is None else machine
    num_devices = machine.devices * machine.nodes
    torch.set_num_threads(machine.num_threads)
    keep_memory()
    kept = kept_speed(machine.num_workers) if machine.device == "cpu" else 1.0
    counts = {method.name: counting(experiment, method, budget, dataset) for method in experiment.methods}

    def cost(method: Method, size: Size) -> RunCost:
        return counts[method.name](size)

    climber = None if experiment.ladder is None else Climber(experiment, budget, cost)
    cells = list(grid_cells(experiment, budget) if climber is None else climber.cells())
    for batch in sorted({cell.recipe.batch_size for cell in cells}):
        if micro_batches(batch, num_devices, machine.micro_batch) * num_devices > 1:
            _check_division(experiment.methods)
    runs: list[PlannedRun] = []
    for method in experiment.methods:
        own = [cell for cell in cells if cell.method is method]
        found = [cell_run(cell, dataset) for cell in own]
        first = found[0]
        meta = build_meta(first, dataset.space(method.tokenizer), dataset.conditions)
        check_sampler(first, meta, method, dataset.conditions)
        check_memory(max(cost(method, cell.size).num_params for cell in own), device_memory())
        speed = measure_speed(found, dataset, partial(cost, method))
        for cell, run in zip(own, found, strict=True):
            counted = cost(method, cell.size)
            runs.append(
                PlannedRun(
                    run=run,
                    method=method,
                    num_params=counted.num_params,
                    flops_per_image=counted.dense,
                    flops_per_image_causal=counted.causal,
                    flops_per_second=num_devices * kept * speed(cell.size.width),
                    num_training_images=cell.recipe.num_training_images,
                    loss_unit=meta.loss_unit,
                    extrapolated=cell.extrapolated,
                )
            )
    _check_steps(runs, budget)
    needed = max(worker_bytes(p.num_params, p.run.width, p.run.recipe.batch_size, p.flops_per_image) for p in runs)
    machine = share_devices(machine, max(p.run.width for p in runs), needed, device_memory())
    if climber is not None:
        experiment = replace(experiment, recipe=replace(experiment.recipe, num_training_images=climber.num_training_images))
    row_bytes = {name: dataset.row_bytes(name) for name in experiment.tokenizers}
    widest = max((p for p in runs if p.run.width <= CALIBRATION_WIDTH), key=lambda p: p.run.width, default=runs[0])
    note = precision_note(widest.run, dataset, partial(cost, widest.method)) if machine.device == "cpu" else ""
    return Plan(experiment, budget, tuple(runs), machine, row_bytes, explain(experiment, cells, climber), note)


def _check_division(methods: tuple[Method, ...]) -> None:
    """Refuse methods whose loss needs a whole batch where a batch is divided."""
    whole = [method.name for method in methods if load(method.paradigm).whole_batch]
    if whole:
        raise ValueError(
            f"the loss of {', '.join(whole)} needs a whole batch at once; leave out DEVICES, NODES and MICRO_BATCH, or the method"
        )


def _check_steps(runs: list[PlannedRun], budget: int) -> None:
    """Refuse budgets that cannot be met to 1 %."""

    def least(planned: PlannedRun) -> float:
        """Top budget at which this run gets MIN_STEPS."""
        step = planned.flops_per_image * planned.run.recipe.batch_size
        return MIN_STEPS * step * budget / planned.run.flops_budget

    worst = max(runs, key=least)
    if worst.steps < MIN_STEPS:
        raise ValueError(
            f"BUDGET is too small: {worst.run.method} at {worst.run.size.name} gets {worst.steps} steps at its lowest rung "
            f"({worst.run.flops_budget:.3g} FLOPs), {MIN_STEPS} are needed; use BUDGET={least(worst) * 1.05:.2g} or more"
        )
