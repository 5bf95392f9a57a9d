"""From an experiment and a budget to the list of runs, their counted FLOPs, steps and estimated hours. Trains nothing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch

from bench.config.experiment import Experiment, Method, Size
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.model import build_meta
from bench.plan.calibrate import calibrate
from bench.plan.cost import check_sampler, count_run
from bench.plan.machine import Machine, check_memory, device_memory, this_machine
from bench.plan.plugin import plugin_identity
from bench.progress import format_hours
from bench.randomness import micro_batches
from bench.registry import load
from bench.results.columns import PLAN_COLUMNS
from bench.results.identity import Identity

CALIBRATION_DEPTH = 2
"""Blocks that are timed: more of the same take as long each, and a large model would take minutes to build."""
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

    @property
    def steps(self) -> int:
        """Optimizer steps that the budget buys."""
        return round(self.run.flops_budget / (self.flops_per_image * self.run.recipe.batch_size))

    def row(self, trunk_flops: float) -> dict[str, Any]:
        """The run's row of plan.csv; its hours hold the trunk beyond the rung before, at trunk_flops, and its own cooldown."""
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
        }


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment at a budget, grouped by trunk."""

    experiment: Experiment
    budget: int
    runs: tuple[PlannedRun, ...]
    machine: Machine
    cache_bytes: dict[str, int]
    """What each tokenizer's latent cache takes on disk."""

    @property
    def missing_tokenizers(self) -> list[str]:
        """Tokenizers whose weights are not on this machine."""
        return sorted({p.run.tokenizer for p in self.runs if not p.run.tokenizer_hash})

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
    def total_hours(self) -> float:
        """Training hours on this machine with all its workers busy."""
        return float(self.frame["hours"].sum()) / self.machine.num_workers

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

    def check_hours(self, max_hours: float) -> None:
        """Refuse a sweep that this machine cannot finish in time.

        Raises:
            ValueError: naming the estimate, the largest budget that fits, and what overrides it.
        """
        if self.total_hours > max_hours:
            fits = self.budget * max_hours / self.total_hours
            digits = 10 ** (math.floor(math.log10(fits)) - 1)
            raise ValueError(
                f"BUDGET={self.budget:.3g} needs about {format_hours(self.total_hours)} of training on this machine "
                f"({self.machine.device}, {self.machine.num_workers} at a time), more than MAX_HOURS={max_hours:g}; the largest "
                f"budget that fits is about BUDGET={math.floor(fits / digits) * digits:.2g}; MAX_HOURS=... overrides"
            )


def make_plan(experiment: Experiment, budget: int, dataset: TokenizedData, machine: Machine | None = None) -> Plan:
    """Count every run of the experiment and calibrate this machine's speed.

    Raises:
        ValueError: for an unknown paradigm, impossible options, a model that no device holds, a batch that the devices cannot
            share equally, or a budget whose lowest rung has too few steps.
    """
    machine = this_machine() if machine is None else machine
    num_devices = machine.devices * machine.nodes
    micro_batches(experiment.recipe.batch_size, num_devices, machine.micro_batch)
    torch.set_num_threads(machine.num_threads)
    runs: list[PlannedRun] = []
    for method in experiment.methods:
        rate = None
        for index, size in enumerate(experiment.sizes):
            rates = experiment.rates(method, index)
            template = first_run(experiment, method, size, budget, dataset)
            space = dataset.space(method.tokenizer)
            meta = build_meta(template, space, dataset.conditions)
            if index == 0:
                check_sampler(template, meta, method, dataset.conditions)
            cost = count_run(template, meta, dataset.conditions)
            check_memory(cost.num_params, device_memory())
            if rate is None:
                shallow = replace(template, depth=min(template.depth, CALIBRATION_DEPTH))
                if shallow == template:
                    first = cost
                else:
                    first = count_run(shallow, build_meta(shallow, space, dataset.conditions), dataset.conditions)
                rate = num_devices * calibrate(shallow, space, dataset, first.dense)
            for share, num_seeds in zip(experiment.rungs, experiment.num_seeds[index], strict=True):
                for seed in range(num_seeds):
                    for learning_rate in rates:
                        run = replace(template, seed=seed, learning_rate=learning_rate, flops_budget=round(budget * share))
                        runs.append(
                            PlannedRun(
                                run=run,
                                method=method,
                                num_params=cost.num_params,
                                flops_per_image=cost.dense,
                                flops_per_image_causal=cost.causal,
                                flops_per_second=rate,
                                num_training_images=experiment.recipe.num_training_images,
                                loss_unit=meta.loss_unit,
                            )
                        )
    _check_steps(runs, budget)
    num = experiment.recipe.num_training_images
    cache_bytes = {name: num * dataset.row_bytes(name) for name in experiment.tokenizers}
    return Plan(experiment, budget, tuple(runs), machine, cache_bytes)


def first_run(experiment: Experiment, method: Method, size: Size, budget: int, dataset: TokenizedData) -> Run:
    """The method at a size with seed 0 and its first rate, which the others vary."""
    return Run(
        method=method.name,
        paradigm=method.paradigm,
        paradigm_version=load(method.paradigm).version,
        plugin=plugin_identity(method.paradigm),
        options=method.options,
        tokenizer=method.tokenizer,
        tokenizer_hash=dataset.tokenizer_hash(method.tokenizer),
        data=dataset.data_id,
        **asdict(size),
        seed=0,
        learning_rate=experiment.rates(method, 0)[0],
        recipe=experiment.recipe,
        flop_rule=experiment.flop_rule,
        flops_budget=budget,
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
