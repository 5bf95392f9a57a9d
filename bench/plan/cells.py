"""The cells of a comparison: one run to plan each, the run that it becomes on a data set, and what counts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache

from bench.config.experiment import Experiment, FlopRule, Method, Recipe, Size
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.flops.count import num_parameters
from bench.model import build_meta
from bench.paradigm import Paradigm
from bench.plan.cost import RunCost, count_run
from bench.plan.plugin import plugin_identity
from bench.plan.sizes_cost import exact_costs
from bench.registry import load


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run to plan."""

    method: Method
    size: Size
    flops_budget: int
    seed: int = 0
    learning_rate: float = 0.0
    """Peak; 0 while only costs are asked for."""
    recipe: Recipe
    flop_rule: FlopRule
    extrapolated: tuple[str, ...] = ()
    """Which of its choices lie outside the range of the law that made them."""


def grid_cells(experiment: Experiment, budget: int) -> Iterator[Cell]:
    """Every method x size x rung x seed x rate of an experiment that fixes them."""
    for method in experiment.methods:
        for index, size in enumerate(experiment.sizes):
            for share, num_seeds in zip(experiment.rungs, experiment.num_seeds[index], strict=True):
                for seed in range(num_seeds):
                    for rate in experiment.rates(method, index):
                        yield Cell(
                            method=method,
                            size=size,
                            flops_budget=round(budget * share),
                            seed=seed,
                            learning_rate=rate,
                            recipe=drawing_from(experiment.recipe, method),
                            flop_rule=experiment.flop_rule,
                        )


def drawing_from(recipe: Recipe, method: Method) -> Recipe:
    """The recipe with the number of training images that a method states, where it does."""
    return recipe if method.num_training_images is None else replace(recipe, num_training_images=method.num_training_images)


def cell_run(cell: Cell, dataset: TokenizedData) -> Run:
    """The run of a cell on a data set."""
    return Run(
        method=cell.method.name,
        paradigm=cell.method.paradigm,
        paradigm_version=load(cell.method.paradigm).version,
        plugin=plugin_identity(cell.method.paradigm),
        options=cell.method.options,
        tokenizer=cell.method.tokenizer,
        tokenizer_hash=dataset.tokenizer_hash(cell.method.tokenizer),
        data=dataset.data_id,
        **asdict(cell.size),
        seed=cell.seed,
        learning_rate=cell.learning_rate,
        recipe=cell.recipe,
        flop_rule=cell.flop_rule,
        flops_budget=cell.flops_budget,
    )


def first_run(experiment: Experiment, method: Method, size: Size, budget: int, dataset: TokenizedData) -> Run:
    """A method at a size, with seed 0, the experiment's recipe and the method's first rate (0 where the laws give it)."""
    rate = (*experiment.rates(method, 0), 0.0)[0]
    recipe, rule = experiment.recipe, experiment.flop_rule
    cell = Cell(method=method, size=size, flops_budget=budget, learning_rate=rate, recipe=recipe, flop_rule=rule)
    return cell_run(cell, dataset)


def counting(experiment: Experiment, method: Method, budget: int, dataset: TokenizedData) -> Callable[[Size], RunCost]:
    """What counts a method at a size, each size once; many sizes by way of a few small ones."""

    def build(size: Size) -> tuple[Run, Paradigm]:
        recipe, rule = experiment.recipe, experiment.flop_rule
        run = cell_run(Cell(method=method, size=size, flops_budget=budget, recipe=recipe, flop_rule=rule), dataset)
        return run, build_meta(run, dataset.space(method.tokenizer), dataset.conditions)

    def count(size: Size) -> RunCost:
        return count_run(*build(size), dataset.conditions)

    return cache(count) if experiment.ladder is None else exact_costs(count, lambda size: num_parameters(build(size)[1]))
