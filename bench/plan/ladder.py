"""From a budget to the cells of a ladder: which method trains which size at which rung with how many seeds and which recipe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.config.data import ImageData
from bench.config.experiment import Evaluation, Experiment, Method, Recipe
from bench.config.ladder import LEAST_SIZES, Ladder
from bench.config.size import GRID, Size
from bench.plan.bracket import Best, SizeChoice
from bench.plan.cells import Cell, drawing_from
from bench.plan.cost import RunCost
from bench.plan.laws import Laws, load_laws
from bench.plan.recipe import LEAST_BATCH, LEAST_STEPS, TrunkRecipe, trunk_recipes

NUM_RUNGS, DECADES = 6, 2.5
"""What an exponent needs (fits.md of Hoffmann et al. 2022 and Porian et al. 2024: six budgets; two and a half decades)."""
LEAST_DECADES = 0.5
CLAIM_FACTOR = 2.0
"""Sizes within this factor of the best get all seeds."""
TRUNK_SPAN = 4.0
"""Largest rung over smallest of a trunk, which has one batch and one rate: a wider span would give its top rung the small batch
that its lowest one needs for LEAST_STEPS."""
LEAST_IMAGES = 65_536

Cost = Callable[[Method, Size], RunCost]


def laws_of(experiment: Experiment) -> Laws:
    """The laws of the experiment's kind of data."""
    return load_laws("images" if isinstance(experiment.data, ImageData) else "shapes")


def resolved(experiment: Experiment, budget: int) -> Experiment:
    """A ladder's experiment with the world and the evaluation that its laws give the budget; others as they are."""
    if experiment.ladder is None:
        return experiment
    laws = laws_of(experiment)
    return replace(
        experiment,
        data=experiment.data or laws.world(budget),
        evaluation=laws.evaluation(budget) if experiment.evaluation == Evaluation() else experiment.evaluation,
    )


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """A method's rungs: the best size and the trained sizes of each."""

    best: tuple[Best, ...]
    trained: dict[Size, list[Best]]
    """The rungs of each size, ascending; smallest size first."""


def trunks(served: list[Best]) -> list[list[Best]]:
    """The rungs of a size, ascending, as trunks of at most TRUNK_SPAN."""
    groups: list[list[Best]] = []
    for best in reversed(served):
        if groups and groups[-1][-1].flops_budget <= best.flops_budget * TRUNK_SPAN:
            groups[-1].insert(0, best)
        else:
            groups.append([best])
    return groups[::-1]


class Climber:
    """Plans the cells of one experiment with a ladder."""

    def __init__(self, experiment: Experiment, budget: int, cost: Cost, laws: Laws | None = None) -> None:
        """cost: counted cost of a method at a size.

        Raises:
            ValueError: for a budget that the ladder does not reach, naming the nearest one that it does.
        """
        assert experiment.ladder is not None
        self.experiment, self.budget, self.cost = experiment, budget, cost
        self.ladder: Ladder = experiment.ladder
        self.laws = laws or laws_of(experiment)
        self.sizes = tuple(sorted(self.ladder.sizes or GRID, key=lambda s: s.depth * s.width**2))
        self.budgets = self._budgets()
        self.rungs = {method.name: self._rungs(method) for method in experiment.methods}
        self.num_training_images = self._num_training_images()

    def cells(self) -> Iterator[Cell]:
        """Every run, by method, size, rung and seed."""
        base = replace(self.experiment.recipe, num_training_images=self.num_training_images)
        for method in self.experiment.methods:
            for size, served in self.rungs[method.name].trained.items():
                for together in trunks(served):
                    recipes = self._recipes(method, size, together, drawing_from(base, method))
                    for best, recipe in itertools.product(together, recipes):
                        yield from self._seeds(method, size, best, recipe)

    def _seeds(self, method: Method, size: Size, best: Best, trunk: TrunkRecipe) -> Iterator[Cell]:
        """All seeds of a size at a rung: several where claims read."""
        distances = {
            other: best.distance(self.cost(method, other).num_params)
            for other, served in self.rungs[method.name].trained.items()
            if best in served
        }
        claimed = distances[size] <= max(math.log(CLAIM_FACTOR), min(distances.values()))
        outside = ("size",) if best.law.extrapolated and self.ladder.sizes is None else ()
        for seed in range(self.ladder.num_seeds if claimed else 1):
            yield Cell(
                method=method,
                size=size,
                flops_budget=best.flops_budget,
                seed=seed,
                learning_rate=trunk.learning_rate,
                recipe=trunk.recipe,
                flop_rule=self.experiment.flop_rule,
                extrapolated=outside + trunk.extrapolated,
            )

    def _recipes(self, method: Method, size: Size, served: list[Best], base: Recipe) -> list[TrunkRecipe]:
        per_image = self.cost(method, size).dense
        images = [best.flops_budget / per_image for best in served]
        return trunk_recipes(self.laws, self.ladder, base, method, size, images[0], images[-1])

    def _budgets(self) -> tuple[int, ...]:
        """The rungs, ending at the budget."""
        if self.ladder.rungs is not None:
            return tuple(round(self.budget * share) for share in self.ladder.rungs)
        lowest = self._lowest()
        if self.budget < lowest * 10**LEAST_DECADES:
            raise ValueError(
                f"BUDGET={self.budget:.3g} is below the ladder: its {LEAST_SIZES} smallest sizes need "
                f"{lowest:.2g} FLOPs for {LEAST_STEPS} steps; use "
                f"BUDGET={rounded_up(lowest * 10**LEAST_DECADES):.2g} or more, or an experiment with sizes of its own"
            )
        span = min(DECADES, math.log10(self.budget / lowest))
        return tuple(round(self.budget * 10 ** (-span * step / (NUM_RUNGS - 1))) for step in reversed(range(NUM_RUNGS)))

    def _lowest(self) -> float:
        """The least budget at which every method has LEAST_SIZES sizes of LEAST_STEPS steps."""
        batch = self.ladder.batch_size or LEAST_BATCH
        last = self.sizes[min(LEAST_SIZES, len(self.sizes)) - 1]
        dearest = max(self.cost(method, last).dense for method in self.experiment.methods)
        return 1.001 * dearest * batch * LEAST_STEPS  # rungs are whole numbers

    def _rungs(self, method: Method) -> Rungs:
        choice = SizeChoice(self.sizes, lambda size: self.cost(method, size), self.laws, method.paradigm)
        batch = self.ladder.batch_size or LEAST_BATCH
        best = tuple(choice.best(budget) for budget in self.budgets)
        trained: dict[Size, list[Best]] = {}
        for rung in best:
            images = LEAST_STEPS * batch
            around = choice.around(rung, lambda size: rung.flops_budget >= images * self.cost(method, size).dense)  # noqa: B023
            for size in around if self.ladder.sizes is None else self.sizes:
                trained.setdefault(size, []).append(rung)
        if self.ladder.sizes is None and not choice.holds(best[-1]):
            raise ValueError(
                f"BUDGET={self.budget:.3g} is above the ladder: its largest size is {self.sizes[-1].name}, and {method.name} is "
                f"best at about {best[-1].num_params:.2g} parameters; use "
                f"BUDGET={rounded_down(choice.highest(self.budget)):.2g} or less"
            )
        return Rungs(best=best, trained={size: trained[size] for size in self.sizes if size in trained})

    def _num_training_images(self) -> int:
        """Images that training draws from: of a world as many as keep the longest run within the law's epochs."""
        if isinstance(self.experiment.data, ImageData):
            return self.experiment.recipe.num_training_images
        if self.ladder.num_training_images is not None:
            return self.ladder.num_training_images
        most = max(
            served[-1].flops_budget / self.cost(method, size).dense
            for method in self.experiment.methods
            for size, served in self.rungs[method.name].trained.items()
        )
        return int(2 ** math.ceil(math.log2(max(most / self.laws.epochs.value, LEAST_IMAGES))))


def rounded_up(value: float) -> float:
    """Rounded up to two digits, so that a printed budget is enough."""
    digit = 10 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / digit) * digit


def rounded_down(value: float) -> float:
    """Rounded down to two digits, so that a printed budget is not too much."""
    digit = 10 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / digit) * digit
