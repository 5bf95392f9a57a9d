"""The best size of a budget by the law of images per parameter, and the sizes around it that are trained.

Letters: C training FLOPs of a run, N parameters, D images of a run. The best size is where D / N meets the law, with
D = C / (counted FLOPs per image): so the law carries over between numbers of tokens and between methods of different cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.config.ladder import LEAST_SIZES
from bench.config.size import HEAD_WIDTH, Size
from bench.plan.cost import RunCost
from bench.plan.laws import Estimate, Laws

BRACKET = 4.0
"""At a rung a method trains the sizes within this factor of the best one."""
BEYOND = 2.0
"""And those within this factor of the interval of the best one, which is wide outside the laws' range."""


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

    def distance(self, num_params: int) -> float:
        """How far a size is from the best, as the logarithm of a factor."""
        return abs(math.log(num_params / self.num_params))


class SizeChoice:
    """The sizes of one method by budget; it walks along the grid, so that sizes far from the budget's are never counted."""

    def __init__(self, sizes: Sequence[Size], cost: Callable[[Size], RunCost], laws: Laws, paradigm: str) -> None:
        """sizes: ascending."""
        self.sizes, self.cost, self.laws, self.paradigm = sizes, cost, laws, paradigm
        self._start = min(max(1, sum(size.width < HEAD_WIDTH for size in sizes)), len(sizes) - 1)

    def best(self, budget: int) -> Best:
        """The best size of a budget, with its interval."""
        law = self.laws.images_law(self.paradigm, budget)
        value, low, high = (self._params_at(budget / ratio) for ratio in (law.value, law.high, law.low))
        return Best(flops_budget=budget, num_params=value, low=low, high=high, law=law)

    def around(self, best: Best, affordable: Callable[[Size], bool]) -> list[Size]:
        """The affordable sizes of the bracket and, where they are fewer than LEAST_SIZES, the nearest beyond it."""
        low, high = best.bracket
        above = self._place(best.num_params, self._params)
        below = above - 1
        chosen: list[int] = []

        def add(place: int) -> bool:
            fits = 0 <= place < len(self.sizes) and affordable(self.sizes[place])
            chosen.extend([place] if fits else [])
            return fits

        while below >= 0 and self._params(self.sizes[below]) >= low:
            add(below)
            below -= 1
        while above < len(self.sizes) and self._params(self.sizes[above]) <= high:
            add(above)
            above += 1
        while len(chosen) < LEAST_SIZES and (below >= 0 or above < len(self.sizes)):
            if add(above):
                above += 1
            else:
                above = len(self.sizes)
                add(below)
                below -= 1
        return [self.sizes[place] for place in sorted(chosen)]

    def highest(self, budget: int) -> float:
        """The largest budget, below one that is too large, whose bracket the grid holds; found by halving."""
        low, high = 0.0, math.log10(budget)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.holds(self.best(round(10**middle))) else (low, middle)
        return float(10**low)

    def holds(self, best: Best) -> bool:
        """Whether the grid reaches to the end of a bracket."""
        return best.bracket[1] <= self._params(self.sizes[-1])

    def _params(self, size: Size) -> float:
        return float(self.cost(size).num_params)

    def _product(self, size: Size) -> float:
        return self._params(size) * self.cost(size).dense

    def _place(self, wanted: float, key: Callable[[Size], float]) -> int:
        """Index of the first size whose key reaches `wanted`; the number of sizes when none does."""
        place = self._start
        while place > 0 and key(self.sizes[place - 1]) >= wanted:
            place -= 1
        while place < len(self.sizes) and key(self.sizes[place]) < wanted:
            place += 1
        return place

    def _params_at(self, product: float) -> float:
        """The parameters N at which N x FLOPs per image is the product, between sizes of the grid and on beyond its ends."""
        if len(self.sizes) == 1:
            return self._params(self.sizes[0])
        place = min(max(self._place(product, self._product), 1), len(self.sizes) - 1)
        below, above = self.sizes[place - 1], self.sizes[place]
        share = math.log(product / self._product(below)) / math.log(self._product(above) / self._product(below))
        return self._params(below) ** (1 - share) * self._params(above) ** share
