"""What a plan chose, each choice with the law that made it, as `paradigm-bench plan` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.config.data import ImageData
from bench.config.experiment import Experiment, Method
from bench.plan.bracket import BRACKET
from bench.plan.cells import Cell
from bench.plan.ladder import CLAIM_FACTOR, Climber
from bench.plan.recipe import FIXED, base_rate


@dataclass(frozen=True, slots=True)
class Choice:
    """One quantity of a plan."""

    quantity: str
    value: str
    law: str
    extrapolated: bool = False


def explain(experiment: Experiment, cells: Sequence[Cell], climber: Climber | None) -> tuple[Choice, ...]:
    """Every choice of a plan, in the order in which they follow from one another."""
    if climber is None:
        return (Choice("sizes, rungs, seeds, batch, rates, images", f"{len(cells)} runs", FIXED),)
    ladder, laws = climber.ladder, climber.laws
    data = experiment.data.name if isinstance(experiment.data, ImageData) else experiment.data
    shown = [Choice("data", data, laws.worlds_source if isinstance(experiment.data, str) else FIXED)]
    rungs = f"{len(climber.budgets)} from {climber.budgets[0]:.3g} to {climber.budgets[-1]:.3g} FLOPs"
    shown.append(
        Choice("rungs", rungs, FIXED if ladder.rungs else "six budgets over 2.5 decades, as far as the smallest sizes reach")
    )
    for method in experiment.methods:
        shown += _of_method(climber, method, [cell for cell in cells if cell.method is method])
    shown += [
        Choice("seeds", f"{ladder.num_seeds} within a factor {CLAIM_FACTOR:g} of the best size, else 1", "Ladder(num_seeds=...)"),
        _between(
            "batch", [c.recipe.batch_size for c in cells], FIXED if ladder.batch_size else laws.batch.source, cells, "batch_size"
        ),
        _between(
            "weight decay",
            [c.recipe.weight_decay for c in cells],
            FIXED if ladder.weight_decay is not None else laws.timescale.source,
        ),
        _between("beta2", [c.recipe.betas[1] for c in cells], laws.beta2.source),
        _between(
            "warm-up steps",
            [c.recipe.warmup_steps for c in cells],
            FIXED if ladder.warmup_steps is not None else laws.warmup.source,
        ),
        Choice(
            "precision",
            ", ".join(sorted({c.recipe.precision for c in cells})),
            FIXED if ladder.precision else f"bf16 from width {laws.bf16_width.value:g}: {laws.bf16_width.source}",
        ),
        Choice(
            "training images",
            f"{climber.num_training_images:,}",
            FIXED
            if ladder.num_training_images or isinstance(experiment.data, ImageData)
            else f"at most {laws.epochs.value:g} epochs: {laws.epochs.source}",
        ),
        Choice(
            "evaluation",
            f"{experiment.evaluation.num_samples} images, {experiment.evaluation.num_validation} per setting",
            laws.evaluations_source if experiment.evaluation == laws.evaluation(climber.budget) else FIXED,
        ),
    ]
    return tuple(shown)


def _of_method(climber: Climber, method: Method, cells: Sequence[Cell]) -> list[Choice]:
    """Sizes and rates of a method."""
    rungs = climber.rungs[method.name]
    first, last = rungs.best[0], rungs.best[-1]
    value = f"{cells[0].size.name} to {cells[-1].size.name}, best {first.num_params:.2g} to {last.num_params:.2g} parameters"
    law = f"{first.law.value:.2g} to {last.law.value:.2g} images per parameter, sizes within {BRACKET:g}x: {last.law.source}"
    found = base_rate(climber.laws, method)
    rate = f"{found.value:.3g} at width {found.width}, batch {found.batch}, {found.images:.2g} images; {found.source}"
    if any(len(found.factors(cell.size)) > 1 for cell in cells):
        factors, (low, high) = ", ".join(f"{factor:g}" for factor in found.search), found.depths
        depths = f"other than {low}" if low == high else f"outside {low} to {high}"
        rate = f"searched at depths {depths}: {factors} times the carried rate; {rate}"
    outside = any(best.law.extrapolated for best in rungs.best)
    fixed = climber.ladder.sizes is not None
    return [
        Choice(f"sizes of {method.name}", value, FIXED if fixed else law, outside and not fixed),
        _between(f"rates of {method.name}", [cell.learning_rate for cell in cells], rate, cells, "learning_rate"),
    ]


def _between(quantity: str, values: Sequence[float], law: str, cells: Sequence[Cell] = (), name: str = "") -> Choice:
    low, high = min(values), max(values)
    value = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return Choice(quantity, value, law, any(name in cell.extrapolated for cell in cells))
