"""From a budget to the cells of a ladder: which method trains which size at which rung with how many seeds and which recipe.

Letters: C training FLOPs of a run, N parameters, D images of a run. The best size of a budget is where images per parameter,
D / N, meet the law of the method, with D = C / (counted FLOPs per image): so the law carries over between numbers of tokens.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.config.data import ImageData
from bench.config.experiment import Evaluation, Experiment, Method, Recipe
from bench.config.ladder import LEAST_SIZES, Ladder
from bench.config.size import GRID, Size
from bench.plan.cost import RunCost
from bench.plan.laws import Estimate, Laws, load_laws
from bench.plan.recipe import LEAST_BATCH, LEAST_STEPS, TrunkRecipe, trunk_recipe

NUM_RUNGS, DECADES = 6, 2.5
"""What an exponent needs (fits.md of Hoffmann et al. 2022 and Porian et al. 2024: six budgets; two and a half decades)."""
LEAST_DECADES = 0.5
BRACKET = 4.0
"""At a rung a method trains the sizes within this factor of the best one."""
BEYOND = 2.0
"""And those within this factor of the interval of the best one, which is wide outside the laws' range."""
CLAIM_FACTOR = 2.0
"""Sizes within this factor of the best get all seeds."""
LEAST_IMAGES = 65_536

Cost = Callable[[Method, Size], RunCost]


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
    extrapolated: tuple[str, ...] = ()
    """Which of its choices lie outside the range of the law that made them."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best size of a budget by the law, between sizes of the grid."""

    flops_budget: int
    num_params: float
    low: float
    high: float
    law: Estimate

    @property
    def bracket(self) -> tuple[float, float]:
        """Parameters between which sizes are trained."""
        return min(self.num_params / BRACKET, self.low / BEYOND), max(self.num_params * BRACKET, self.high * BEYOND)


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
                            recipe=experiment.recipe,
                        )


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
                trunk = self._trunk(method, size, served, base)
                num_params = self.cost(method, size).num_params
                for best in served:
                    claimed = max(num_params / best.num_params, best.num_params / num_params) <= CLAIM_FACTOR
                    claimed = claimed or size == self._nearest(method, best)
                    outside = ("size",) if best.law.extrapolated and self.ladder.sizes is None else ()
                    for seed in range(self.ladder.num_seeds if claimed else 1):
                        yield Cell(
                            method=method,
                            size=size,
                            flops_budget=best.flops_budget,
                            seed=seed,
                            learning_rate=trunk.learning_rate,
                            recipe=trunk.recipe,
                            extrapolated=outside + trunk.extrapolated,
                        )

    def _trunk(self, method: Method, size: Size, served: list[Best], base: Recipe) -> TrunkRecipe:
        per_image = self.cost(method, size).dense
        images = [best.flops_budget / per_image for best in served]
        return trunk_recipe(self.laws, self.ladder, base, method, size, images[0], images[-1])

    def _budgets(self) -> tuple[int, ...]:
        """The rungs, ending at the budget."""
        if self.ladder.rungs is not None:
            return tuple(round(self.budget * share) for share in self.ladder.rungs)
        lowest = self._lowest()
        if self.budget < lowest * 10**LEAST_DECADES:
            raise ValueError(
                f"BUDGET={self.budget:.3g} is below the ladder: its {LEAST_SIZES} smallest sizes need "
                f"{lowest:.2g} FLOPs for {LEAST_STEPS} steps; use BUDGET={_up(lowest * 10**LEAST_DECADES):.2g} or more, or an "
                "experiment with sizes of its own"
            )
        span = min(DECADES, math.log10(self.budget / lowest))
        return tuple(round(self.budget * 10 ** (-span * step / (NUM_RUNGS - 1))) for step in reversed(range(NUM_RUNGS)))

    def _lowest(self) -> float:
        """The least budget at which every method has LEAST_SIZES sizes of LEAST_STEPS steps."""
        batch = self.ladder.batch_size or LEAST_BATCH
        last = self.sizes[min(LEAST_SIZES, len(self.sizes)) - 1]
        return max(self.cost(method, last).dense for method in self.experiment.methods) * batch * LEAST_STEPS

    def _rungs(self, method: Method) -> Rungs:
        best = tuple(self._best(method, budget) for budget in self.budgets)
        trained: dict[Size, list[Best]] = {}
        for rung in best:
            for size in self._around(method, rung):
                trained.setdefault(size, []).append(rung)
        return Rungs(best=best, trained={size: trained[size] for size in self.sizes if size in trained})

    def _around(self, method: Method, best: Best) -> list[Size]:
        """The sizes trained at a rung."""
        if self.ladder.sizes is not None:
            return list(self.sizes)
        batch = self.ladder.batch_size or LEAST_BATCH
        affordable = [
            s for s in self._near(method, best) if best.flops_budget / self.cost(method, s).dense >= batch * LEAST_STEPS
        ]
        if best.bracket[1] > self.cost(method, self.sizes[-1]).num_params:
            highest = _down(self._highest(method))
            raise ValueError(
                f"BUDGET={self.budget:.3g} is above the ladder: its largest size is {self.sizes[-1].name}, and {method.name} is "
                f"best at about {best.num_params:.2g} parameters; use BUDGET={highest:.2g} or less"
            )
        low, high = best.bracket
        distances = {s: abs(math.log(self.cost(method, s).num_params / best.num_params)) for s in affordable}
        inside = [s for s in affordable if low <= self.cost(method, s).num_params <= high]
        nearest = sorted(affordable, key=distances.__getitem__)[:LEAST_SIZES]
        return [s for s in affordable if s in inside or s in nearest]

    def _near(self, method: Method, best: Best) -> tuple[Size, ...]:
        """The sizes of the bracket and a few beyond: all others are never counted."""
        low, high = best.bracket
        parameters = lambda size: self.cost(method, size).num_params  # noqa: E731
        first = bisect.bisect_left(self.sizes, low, key=parameters)
        last = bisect.bisect_right(self.sizes, high, key=parameters)
        return self.sizes[max(0, first - LEAST_SIZES) : last + LEAST_SIZES]

    def _nearest(self, method: Method, best: Best) -> Size:
        return min(self._around(method, best), key=lambda s: abs(math.log(self.cost(method, s).num_params / best.num_params)))

    def _best(self, method: Method, budget: int) -> Best:
        law = self.laws.images_law(method.paradigm, budget)
        at = [self._params_where(method, budget / ratio) for ratio in (law.value, law.high, law.low)]
        return Best(flops_budget=budget, num_params=at[0], low=at[1], high=at[2], law=law)

    def _params_where(self, method: Method, product: float) -> float:
        """The parameters N at which N x FLOPs per image is the product, between sizes of the grid and beyond its ends."""

        def logs(size: Size) -> tuple[float, float]:
            cost = self.cost(method, size)
            return math.log(cost.num_params), math.log(cost.num_params * cost.dense)

        if len(self.sizes) == 1:
            return float(self.cost(method, self.sizes[0]).num_params)
        wanted = math.log(product)
        place = bisect.bisect_left(self.sizes, wanted, lo=1, hi=len(self.sizes) - 1, key=lambda size: logs(size)[1])
        (n0, y0), (n1, y1) = logs(self.sizes[place - 1]), logs(self.sizes[place])
        return math.exp(n0 + (n1 - n0) * (wanted - y0) / (y1 - y0))

    def _highest(self, method: Method) -> float:
        """The largest budget whose sizes the grid holds, by halving."""
        largest = self.cost(method, self.sizes[-1]).num_params
        low, high = 0.0, math.log10(self.budget)
        for _ in range(40):
            middle = (low + high) / 2
            fits = self._best(method, round(10**middle)).bracket[1] <= largest
            low, high = (middle, high) if fits else (low, middle)
        return float(10**low)

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


def _up(value: float) -> float:
    """Rounded up to two digits, so that a printed budget is enough."""
    digit = 10 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / digit) * digit


def _down(value: float) -> float:
    digit = 10 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / digit) * digit
