"""How far a learning rate carries: rates carried by the plan's rules against rates searched, for every method of the ladder.

    python results/transfer/study.py results/transfer/trials.csv [PARADIGM ...]

The base is one small model per method. Its best rate is searched; then the rules of bench/plan/recipe.py carry it to two and four
times the width, four times the depth and four times the images, and around the carried rate the best one is searched again. A
trial's loss is that of the last weights on held-out images with fixed noise. Every search walks downhill on a grid in steps of
sqrt(2) with one seed; the carried and the best rate are then trained with all seeds. The standard parametrization is tried at the
rate that its own rule carries. Rows that are there already are not trained again; `regret.py` makes the table from them.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from bench.conditioning import Condition
from bench.config.experiment import Experiment, Method, Recipe
from bench.config.file import LADDER_EXPERIMENT, load_experiment
from bench.config.ladder import Ladder
from bench.config.run import Run
from bench.config.size import Size, size
from bench.data.latents import TrainingData, fill_cache
from bench.data.open import open_data
from bench.model import build_paradigm
from bench.paradigm import Paradigm
from bench.parametrization import parameter_groups
from bench.plan.laws import COMMON, BaseRate, Laws, load_laws
from bench.plan.recipe import trunk_recipe
from bench.randomness import step_seed

BASE, IMAGES, BATCH = size(32, 2), 8192, 16
CELLS = {
    "base": (BASE, IMAGES),
    "2x width": (size(64, 2), IMAGES),
    "4x width": (size(128, 2), IMAGES),
    "4x depth": (size(32, 8), IMAGES),
    "4x horizon": (BASE, 4 * IMAGES),
}
"""Size and training images; the batch is the same, so that the horizon alone is longer."""
FIRST_RATE = 8e-3
SEEDS = (0, 1, 2)
NUM_HELD_OUT, HELD_OUT_BATCH = 1024, 128
COLUMNS = ["paradigm", "cell", "parametrization", "place", "seed", "rate", "loss"]
"""place: of the rate on the grid around the carried one (around FIRST_RATE at the base)."""
WORLD = "shapes32"


@dataclass(frozen=True)
class Trial:
    """One training run of the study."""

    size: Size
    images: int
    recipe: Recipe
    rate: float
    seed: int


class Study:
    """One method's trials, with the tokens encoded once."""

    def __init__(self, method: Method, folder: Path, num_training: int = 4 * IMAGES) -> None:
        self.method = method
        self.dataset = open_data(WORLD)
        self.space, self.conditions = self.dataset.space(method.tokenizer), self.dataset.conditions
        encode, row = self.dataset.encoder(method.tokenizer), self.dataset.row_bytes(method.tokenizer)
        shift = lambda indices: range(indices.start + num_training, indices.stop + num_training)  # noqa: E731
        training, held_out = folder / f"train-{num_training}" / method.tokenizer, folder / "held-out" / method.tokenizer
        fill_cache(training, num_training, row, encode, lambda done: None, chunk=2048)
        fill_cache(held_out, NUM_HELD_OUT, row, lambda indices: encode(shift(indices)), lambda done: None, chunk=2048)
        self.training, self.held_out = TrainingData(training), TrainingData(held_out)

    def loss(self, trial: Trial) -> float:
        """Mean loss on the held-out images after warm-up, constant rate and cooldown; infinite when it diverged."""
        recipe, rate = trial.recipe, trial.rate
        run = Run(
            method=self.method.name,
            paradigm=self.method.paradigm,
            paradigm_version=1,
            options=self.method.options,
            tokenizer=self.method.tokenizer,
            tokenizer_hash=self.dataset.tokenizer_hash(self.method.tokenizer),
            data=self.dataset.data_id,
            width=trial.size.width,
            depth=trial.size.depth,
            num_heads=trial.size.num_heads,
            seed=trial.seed,
            learning_rate=rate,
            recipe=recipe,
            flop_rule="meta-v1",
            flops_budget=1,
        )
        paradigm = build_paradigm(run, self.space, self.conditions)
        groups = parameter_groups(paradigm, paradigm.scalings, rate=rate, weight_decay=recipe.weight_decay)
        multipliers = [group.pop("rate_multiplier") for group in groups]
        optimizer = torch.optim.AdamW(groups, betas=recipe.betas, fused=True)
        steps = trial.images // recipe.batch_size
        for step in range(steps):
            shape = min(1.0, (step + 1) / recipe.warmup_steps, (1 - step / steps) / recipe.cooldown)
            for group, multiplier in zip(optimizer.param_groups, multipliers, strict=True):
                group["lr"] = rate * multiplier * shape
            tokens, words, _ = self.training.batch(trial.seed, step, recipe.batch_size)
            torch.manual_seed(step_seed(trial.seed, step, "loss"))
            loss = paradigm.loss(tokens, Condition.of(words))[0].mean()
            if not torch.isfinite(loss):
                return math.inf
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(paradigm.parameters(), recipe.gradient_clip)
            optimizer.step()
        return self.held_out_loss(paradigm)

    @torch.no_grad()
    def held_out_loss(self, paradigm: Paradigm) -> float:
        """Mean over the held-out images, with the same noise for every model."""
        losses = []
        for step in range(NUM_HELD_OUT // HELD_OUT_BATCH):
            tokens, words, _ = self.held_out.batch(0, step, HELD_OUT_BATCH)
            torch.manual_seed(step)
            losses.append(paradigm.loss(tokens, Condition.of(words))[0].mean())
        return float(torch.stack(losses).mean())


def laws_with(paradigm: str, rate: float) -> Laws:
    """The shipped laws with this rate at the study's base."""
    base = BaseRate(
        value=rate, width=BASE.width, depth=BASE.depth, batch=BATCH, images=IMAGES,
        widths=(BASE.width, 4 * BASE.width), horizons=(IMAGES, 4 * IMAGES), source="results/transfer",
    )  # fmt: skip
    return replace(load_laws("shapes"), base_rate={paradigm: base, COMMON: base})


def carried(method: Method, rate: float, size: Size, images: int, seed: int, *, completep: bool) -> Trial:
    """The trial that the plan's rules make of a base rate, with their warm-up, weight decay and averages."""
    given = Recipe(batch_size=BATCH, completep_base=BASE if completep else None)
    ladder = Ladder(batch_size=BATCH, precision="fp32")
    found = trunk_recipe(laws_with(method.paradigm, rate), ladder, given, method, size, images, images)
    return Trial(size, images, found.recipe, found.learning_rate, seed)


def walk(loss: Callable[[int], float], start: int = 0) -> int:
    """The lowest place of a grid, walked downhill by twos from `start` and then by ones."""
    best = start
    for stride in (2, 1):
        while (down := min((best - stride, best + stride), key=loss)) != best and loss(down) < loss(best):
            best = down
    return best


def on_grid(rate: float, place: int) -> float:
    """A rate so many steps of sqrt(2) away."""
    return rate * 2 ** (place / 2)


class Table:
    """Trials that were made, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: dict[tuple[str, str, str, int, int], tuple[float, float]] = {}
        if path.exists():
            for *key, rate, loss in pd.read_csv(path).itertuples(index=False, name=None):
                self.losses[tuple(key)] = (rate, loss)

    def loss(self, study: Study, cell: str, parametrization: str, place: int, base_rate: float, seed: int = 0) -> float:
        """Loss at a place around the rate that the rules carry to a cell."""
        key = (study.method.paradigm, cell, parametrization, place, seed)
        if key not in self.losses:
            where, images = CELLS[cell]
            rate = on_grid(base_rate, place)
            trial = carried(study.method, rate, where, images, seed, completep=parametrization == "completep")
            self.losses[key] = (trial.rate, study.loss(trial))
            rows = [(*key, *values) for key, values in self.losses.items()]
            pd.DataFrame(rows, columns=COLUMNS).to_csv(self.path, index=False)
        return self.losses[key][1]


def main() -> None:
    """Make the trials that are missing."""
    path, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    table = Table(path)
    experiment: Experiment = load_experiment(LADDER_EXPERIMENT)
    methods = {method.paradigm: method for method in experiment.methods}
    for method in (methods[name] for name in names or methods):
        study = Study(method, path.with_suffix(".cache"))
        rate = FIRST_RATE
        for cell in CELLS:

            def loss(place: int, seed: int = 0, study: Study = study, cell: str = cell, rate: float = rate) -> float:
                return table.loss(study, cell, "completep", place, rate, seed)

            best = walk(loss)
            for place in {0, best} if cell != "base" else {best}:
                found = [loss(place, seed) for seed in SEEDS]
                print(f"{method.paradigm} {cell}: {place:+d} at {on_grid(rate, place):.2e}, {found}", flush=True)
            if cell == "base":
                rate = on_grid(rate, best)
            else:
                print("   standard", [table.loss(study, cell, "standard", 0, rate, seed) for seed in SEEDS], flush=True)


if __name__ == "__main__":
    main()
