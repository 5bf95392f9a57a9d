"""How far a learning rate carries: rates carried by the plan's rules against rates searched, for every method of the ladder.

    python results/transfer/study.py results/transfer/trials.csv [PARADIGM ...]

The base is one small model per method on the world with a long tail, whose losses differ less between seeds than between rates a
factor 2 apart (where shapes32 has it the other way round). Five rates a factor 2 apart are trained there with four seeds, more
while the best one is at an edge, and a parabola through the best one and its neighbors gives the base's rate. The rules of
bench/plan/recipe.py carry it to two and four times the width, four times the depth and four times the images, where the carried
rate, half and twice of it are trained, and more while the best one is at an edge. Where another rate is best, both are trained
again with eight fresh seeds, from which the regret is read: the best of several looks better than it is. A trial's loss is that
of the last weights on held-out images with fixed noise. The standard parametrization is trained at the rate that its own rule
carries. Rows that are there already are not trained again, and several processes may write to one file; `regret.py` makes the
table from them.
"""

import math
import sys
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
from bench.plan.recipe import trunk_recipes
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
PLACES, FURTHER = (-1, 0, 1), (-2, 2)
"""Rates that are tried in every cell, in steps of a factor 2 from the middle, and those that the base has beside them."""
SEEDS, FRESH_SEEDS = (0, 1, 2, 3), tuple(range(4, 12))
NUM_HELD_OUT, HELD_OUT_BATCH = 1024, 128
COLUMNS = ["paradigm", "cell", "parametrization", "place", "seed", "rate", "loss"]
"""place: of the rate on the grid around the carried one (around FIRST_RATE at the base)."""
WORLD = "sprites40"


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
        widths=(BASE.width, 4 * BASE.width), depths=(BASE.depth, 4 * BASE.depth), horizons=(IMAGES, 4 * IMAGES),
        source="results/transfer",
    )  # fmt: skip
    return replace(load_laws("shapes"), base_rate={paradigm: base, COMMON: base})


def carried(method: Method, rate: float, size: Size, images: int, seed: int, *, completep: bool) -> Trial:
    """The trial that the plan's rules make of a base rate, with their warm-up, weight decay and averages."""
    given = Recipe(batch_size=BATCH, completep_base=BASE if completep else None)
    ladder = Ladder(batch_size=BATCH, precision="fp32")
    (found,) = trunk_recipes(laws_with(method.paradigm, rate), ladder, given, method, size, images, images)
    return Trial(size, images, found.recipe, found.learning_rate, seed)


def best_place(losses: dict[int, float]) -> int:
    """The place of the lowest loss."""
    return min(losses, key=lambda place: losses[place])


def lowest_point(losses: dict[int, float]) -> float:
    """Where a parabola through the lowest loss and its two neighbors is lowest; the lowest loss's place where it has only one."""
    best = best_place(losses)
    below, middle, above = (losses.get(place, math.inf) for place in (best - 1, best, best + 1))
    curvature = below - 2 * middle + above
    return best + (below - above) / (2 * curvature) if 0 < curvature < math.inf else float(best)


def at_place(rate: float, place: float) -> float:
    """A rate so many factors of 2 away."""
    return rate * 2**place


class Table:
    """Trials that were made, kept in a file to which each adds a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: dict[tuple[str, str, str, int, int], float] = {}
        if path.exists():
            for *key, _, loss in pd.read_csv(path).itertuples(index=False, name=None):
                self.losses[tuple(key)] = loss
        else:
            path.write_text(",".join(COLUMNS) + "\n")

    def loss(
        self, study: Study, cell: str, parametrization: str, place: int, base_rate: float, seeds: tuple[int, ...] = SEEDS
    ) -> float:
        """Mean loss over seeds at a place around the rate that the rules carry to a cell."""
        losses = []
        for seed in seeds:
            key = (study.method.paradigm, cell, parametrization, place, seed)
            if key not in self.losses:
                where, images = CELLS[cell]
                rate = at_place(base_rate, place)
                trial = carried(study.method, rate, where, images, seed, completep=parametrization == "completep")
                self.losses[key] = float(f"{study.loss(trial):.6g}")
                with self.path.open("a") as file:
                    file.write(",".join(map(str, (*key, f"{trial.rate:.5g}", self.losses[key]))) + "\n")
            losses.append(self.losses[key])
        return sum(losses) / len(losses)

    def search(self, study: Study, cell: str, rate: float) -> dict[int, float]:
        """Mean losses of the rates around one, continued while the best one is at an edge."""
        places = (*PLACES, *FURTHER) if cell == "base" else PLACES
        losses = {place: self.loss(study, cell, "completep", place, rate) for place in places}
        while (best := best_place(losses)) in (min(losses), max(losses)):
            further = best + (1 if best > 0 else -1)
            losses[further] = self.loss(study, cell, "completep", further, rate)
        return losses


def main() -> None:
    """Make the trials that are missing."""
    path, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    table = Table(path)
    experiment: Experiment = load_experiment(LADDER_EXPERIMENT)
    methods = {method.paradigm: method for method in experiment.methods}
    for method in (methods[name] for name in names or methods):
        study = Study(method, path.with_suffix(".cache") / method.paradigm)
        rate = FIRST_RATE
        for cell in CELLS:
            losses = table.search(study, cell, rate)
            print(f"{method.paradigm} {cell}: {losses}", flush=True)
            if cell == "base":
                rate = at_place(rate, lowest_point(losses))
                print(f"   rate {rate:.3g}", flush=True)
                continue
            if CELLS[cell][0] != BASE:  # where the two are the same
                print("   standard", table.loss(study, cell, "standard", 0, rate), flush=True)
            if best := best_place(losses):
                again = {place: table.loss(study, cell, "completep", place, rate, FRESH_SEEDS) for place in (0, best)}
                print(f"   fresh seeds: {again}", flush=True)


if __name__ == "__main__":
    main()
