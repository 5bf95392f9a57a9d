"""What BUDGET alone plans, for every decade: counted, never timed."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from bench.config.experiment import Evaluation, Experiment, Method, Recipe, grid
from bench.config.file import LADDER_EXPERIMENT, load_experiment
from bench.config.ladder import Ladder
from bench.config.run import Run
from bench.config.size import GRID, Size, size
from bench.data.open import open_data
from bench.flops.count import num_parameters
from bench.model import build_meta
from bench.paradigm import Paradigm
from bench.plan.cells import Cell, cell_run
from bench.plan.choices import explain
from bench.plan.cost import RunCost, count_run
from bench.plan.ladder import TRUNK_SPAN, Climber, laws_of, resolved
from bench.plan.plan import make_plan
from bench.plan.recipe import MOST_STEPS
from bench.plan.sizes_cost import exact_costs

DECADES = [10.0**exponent for exponent in range(11, 23)]


def counting(experiment: Experiment, method: Method) -> tuple[Callable[[Size], RunCost], Callable[[Size], int]]:
    """The cost of a size, counted whole, and its parameters."""
    dataset = open_data(experiment.data)

    def build(wanted: Size) -> tuple[Run, Paradigm]:
        recipe, rule = experiment.recipe, experiment.flop_rule
        run = cell_run(Cell(method=method, size=wanted, flops_budget=10**12, recipe=recipe, flop_rule=rule), dataset)
        return run, build_meta(run, dataset.space(method.tokenizer), dataset.conditions)

    return (lambda wanted: count_run(*build(wanted), dataset.conditions)), (lambda wanted: num_parameters(build(wanted)[1]))


@cache
def costs(name: str, world: str, label: str) -> Callable[[Size], RunCost]:
    """Counted once for all budgets of a world."""
    experiment = resolved(load_experiment(name), 10**11 if world == "shapes32" else 10**20)
    method = next(m for m in experiment.methods if m.name == label)
    return exact_costs(*counting(experiment, method))


def near_climb(budget: float) -> Climber:
    """With a cost that is near enough, in milliseconds."""
    experiment = resolved(load_experiment(LADDER_EXPERIMENT), round(budget))
    return Climber(experiment, round(budget), cheap)


def climb(budget: float, name: str = LADDER_EXPERIMENT) -> Climber:
    experiment = resolved(load_experiment(name), round(budget))
    world = experiment.data if isinstance(experiment.data, str) else experiment.data.name
    return Climber(experiment, round(budget), lambda method, wanted: costs(name, world, method.name)(wanted))


def ratio(climber: Climber, cell: Cell) -> float:
    """Images per parameter of a cell."""
    cost = climber.cost(cell.method, cell.size)
    return cell.flops_budget / cost.dense / cost.num_params


@pytest.mark.parametrize("make", [near_climb, pytest.param(climb, marks=pytest.mark.slow)], ids=["near", "counted"])
@pytest.mark.parametrize("budget", DECADES, ids="{:.0e}".format)
def test_every_decade_is_what_an_expert_would_run(budget: float, make: Callable[[float], Climber]) -> None:
    climber = make(budget)
    cells = list(climber.cells())
    assert len(climber.budgets) >= 6
    assert climber.budgets[-1] == budget
    assert budget < 1e14 or climber.budgets[0] <= budget / 10**2.49
    for cell in cells:
        images = cell.flops_budget / climber.cost(cell.method, cell.size).dense
        assert 500 <= images / cell.recipe.batch_size <= MOST_STEPS
        assert math.log2(cell.recipe.batch_size).is_integer()
        assert images <= 4 * climber.num_training_images
        assert cell.recipe.warmup_steps < 0.2 * images / cell.recipe.batch_size
    for method in climber.experiment.methods:
        for rung in climber.rungs[method.name].best:
            here = [c for c in cells if c.method is method and c.flops_budget == rung.flops_budget]
            sizes = {cell.size for cell in here}
            assert len(sizes) >= 4
            nearest = min(here, key=lambda c: abs(math.log(ratio(climber, c) / rung.law.value)))
            assert 1 / 3 <= ratio(climber, nearest) / rung.law.value <= 3
            seeds = Counter(cell.learning_rate for cell in here if cell.size == nearest.size)
            rates = climber.laws.rate(method.paradigm).factors(nearest.size)
            assert list(seeds.values()) == [3] * len(rates)  # of each rate, where several are searched
            smaller = [s for s in sizes if climber.cost(method, s).num_params < rung.num_params]
            larger = [s for s in sizes if climber.cost(method, s).num_params > rung.num_params]
            assert smaller
            assert larger


def test_a_trunk_spans_a_decade_and_all_methods_share_one_grid() -> None:
    climber = near_climb(1e13)
    trunks: dict[tuple[object, ...], set[int]] = {}
    for cell in climber.cells():
        trunks.setdefault((cell.method.name, cell.size, cell.learning_rate, str(cell.recipe)), set()).add(cell.flops_budget)
        assert cell.size in GRID
    assert {len(budgets) for budgets in trunks.values()} <= {1, 2, 3}
    assert max(max(budgets) / min(budgets) for budgets in trunks.values()) <= TRUNK_SPAN


@pytest.mark.slow
def test_1e20_on_images_of_256_tokens_means_models_between_50_million_and_5_billion() -> None:
    climber = climb(1e20, "imagenet256")
    top = [cell for cell in climber.cells() if cell.flops_budget == 10**20]
    for method in climber.experiment.methods:
        assert 5e7 < climber.rungs[method.name].best[-1].num_params < 5e9
    assert {cell.recipe.num_training_images for cell in top} == {1_281_167}
    assert {cell.recipe.precision for cell in top} == {"bf16"}


def test_the_grid_doubles_and_holds_the_published_sizes() -> None:
    products = [s.depth * s.width**2 for s in GRID]
    assert all(1.4 < larger / smaller < 2.5 for smaller, larger in pairwise(products))
    assert {"384x12", "768x12", "1024x24", "1152x28"} <= {s.name for s in GRID}
    assert 18 * products[-1] > 1e10
    with pytest.raises(ValueError, match="width 100 is not on the grid"):
        size(100, 4)


@pytest.mark.parametrize(
    "label", ["next-token", *(pytest.param(label, marks=pytest.mark.slow) for label in ("diffusion", "mar"))]
)
def test_costs_from_small_sizes_are_the_counts_of_large_ones(label: str) -> None:
    experiment = resolved(load_experiment(LADDER_EXPERIMENT), 10**11)
    method = next(m for m in experiment.methods if m.name == label)
    for wanted in (size(12, 4), size(320, 10)):
        assert costs(LADDER_EXPERIMENT, "shapes32", label)(wanted) == counting(experiment, method)[0](wanted)


def test_costs_that_no_polynomial_gives_are_counted_whole() -> None:
    asked: list[Size] = []

    def count(wanted: Size) -> RunCost:
        asked.append(wanted)
        return RunCost(wanted.width, 2.0**wanted.depth, 1.0)

    assert exact_costs(count, lambda wanted: wanted.width)(size(512, 12)).dense == 2.0**12
    assert asked[-1] == size(512, 12)


METHOD = Method(paradigm="diffusion", tokenizer="autoencoder-kl", settings=grid())


def experiment_with(ladder: Ladder, **changes: object) -> Experiment:
    fields = {"name": "own", "data": "shapes32", "methods": (METHOD,), "budget": 1e12, "recipe": Recipe(batch_size=32)}
    return Experiment(**{**fields, **changes}, ladder=ladder)  # type: ignore[arg-type]


def cheap(method: Method, wanted: Size) -> RunCost:
    """Of a transformer over 16 tokens, near enough."""
    num = 18 * wanted.depth * wanted.width**2
    return RunCost(num, 96.0 * num, 96.0 * num)


def test_an_experiment_can_fix_any_choice() -> None:
    fixed = Ladder(
        sizes=(size(32, 4), size(64, 4)), rungs=(0.1, 1.0), num_seeds=2, batch_size=16, warmup_steps=7, weight_decay=0.3,
        precision="bf16", num_training_images=5000,
    )  # fmt: skip
    climber = Climber(experiment_with(fixed), 10**12, cheap)
    cells = list(climber.cells())
    assert {cell.size.name for cell in cells} == {"32x4", "64x4"}
    assert {cell.flops_budget for cell in cells} == {10**11, 10**12}
    recipes = {(c.recipe.batch_size, c.recipe.warmup_steps, c.recipe.weight_decay, c.recipe.precision) for c in cells}
    assert recipes == {(16, 7, 0.3, "bf16")}
    assert climber.num_training_images == 5000
    own_rate = Climber(experiment_with(fixed, methods=(Method(**{**vars(METHOD), "learning_rates": (0.16,)}),)), 10**12, cheap)
    assert [c.learning_rate for c in own_rate.cells()] == pytest.approx([10 * c.learning_rate for c in cells], rel=0.01)


def test_the_laws_evaluation_gives_way_to_the_experiments() -> None:
    own = Evaluation(num_samples=7)
    assert resolved(experiment_with(Ladder()), 10**15).evaluation == laws_of(experiment_with(Ladder())).evaluation(1e15)
    assert resolved(experiment_with(Ladder(), evaluation=own), 10**15).evaluation == own
    assert resolved(experiment_with(Ladder(), data=""), 10**12).data == "shapes32"
    assert resolved(experiment_with(Ladder(), data=""), 10**15).data == "shapes64"
    assert resolved(experiment_with(Ladder()), 10**15).data == "shapes32"


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (1e9, r"BUDGET=1e\+09 is below the ladder: .* use BUDGET=([\d.e+]+) or more"),
        (1e26, r"BUDGET=1e\+26 is above the ladder: .* use BUDGET=([\d.e+]+) or less"),
    ],
)
def test_a_budget_off_the_ladder_is_refused_with_the_nearest(budget: float, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Climber(experiment_with(Ladder()), round(budget), cheap)
    nearest = float(str(caught.value).split("use BUDGET=")[1].split()[0])
    assert list(Climber(experiment_with(Ladder()), round(nearest), cheap).cells())


def test_sizes_that_no_budget_step_fits_are_refused_in_one_line() -> None:
    large = Ladder(sizes=(size(96, 4),), rungs=(1.0,), num_training_images=100)
    with pytest.raises(ValueError, match=r"BUDGET is too small: diffusion at 96x4 gets .* use BUDGET=[\d.e+]+ or more"):
        make_plan(experiment_with(large), 10**9, open_data("shapes32"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ladder(sizes=(size(32, 4), size(32, 4))), "sizes must differ"),
        (lambda: Ladder(sizes=()), "sizes must differ and be at least one"),
        (lambda: Ladder(sizes=(Size(width=30, depth=4, num_heads=4),)), "multiple of num_heads"),
        (lambda: Ladder(rungs=(1.0, 0.1)), "rungs must ascend"),
        (lambda: Ladder(num_seeds=0), "num_seeds=0 must be at least 1"),
        (lambda: experiment_with(Ladder(), sizes=(size(32, 4),)), "ladder and sizes contradict"),
        (lambda: experiment_with(Ladder(), search=True), "ladder and search contradict"),
        (lambda: Experiment(name="own", data="", methods=(METHOD,), budget=1e12), "data is empty"),
        (lambda: Experiment(name="own", data="shapes32", methods=(METHOD,), budget=1e12), "sizes is empty"),
    ],
)  # fmt: skip
def test_contradictions_are_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_rates_are_searched_at_depths_to_which_they_do_not_carry() -> None:
    experiment = experiment_with(
        Ladder(sizes=(size(32, 4), size(32, 8)), rungs=(1.0,), num_seeds=2),
        recipe=Recipe(batch_size=32, completep_base=size(32, 4)),
    )
    shipped = laws_of(experiment)
    failing = replace(shipped.rate(METHOD.paradigm), depths=(2, 4), search=(0.25, 0.5, 1.0))
    laws = replace(shipped, base_rate={**shipped.base_rate, METHOD.paradigm: failing})
    cells, before = list(Climber(experiment, 10**12, cheap, laws).cells()), list(Climber(experiment, 10**12, cheap).cells())

    def of(cells: list[Cell], depth: int) -> list[tuple[float, int, int, float]]:
        return [(c.learning_rate, c.flops_budget, c.seed, c.recipe.weight_decay) for c in cells if c.size.depth == depth]

    assert of(cells, 4) == of(before, 4)
    rates = {rate for rate, *_ in of(cells, 8)}
    (carried,) = {rate for rate, *_ in of(before, 8)}
    assert sorted(rates) == pytest.approx([carried / 4, carried / 2, carried], rel=0.01)
    assert [cell for cell in of(cells, 8) if cell[0] == carried] == of(before, 8)
    assert len(of(cells, 8)) == 3 * len(of(before, 8))  # each rate with all seeds of the carried one
    decays = {rate * decay for rate, _, _, decay in of(cells, 8)}
    assert max(decays) == pytest.approx(min(decays), rel=0.05)  # AdamW's averaging time stays
    shown = {choice.quantity: choice.law for choice in explain(experiment, cells, Climber(experiment, 10**12, cheap, laws))}
    assert shown[f"rates of {METHOD.name}"].startswith("searched at depths outside 2 to 4: 0.25, 0.5, 1 times the carried rate; ")
    given = replace(METHOD, learning_rates=(1e-3,))
    fixed = Climber(replace(experiment, methods=(given,)), 10**12, cheap, laws)
    assert len({cell.learning_rate for cell in fixed.cells()}) <= 2  # one per depth: the experiment's rate is not searched


def test_two_rates_of_a_ladder_are_refused() -> None:
    methods = (Method(**{**vars(METHOD), "learning_rates": (1e-3, 2e-3)}),)
    with pytest.raises(ValueError, match="a ladder carries one learning rate"):
        list(Climber(experiment_with(Ladder(), methods=methods), 10**12, cheap).cells())
