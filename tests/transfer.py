"""How far a learning rate carries: the best rate at several widths, trained for the same steps on the same images.

    python tests/transfer.py TABLE.csv [PARADIGM ...]

For each paradigm, parametrization and width it walks downhill on a grid of rates, first by factors of 2, then by sqrt(2) around
the best, and writes a row per trial: the loss on held-out images with fixed noise, of the weights at the end of the cooldown.
Rows that are there already are not trained again.
"""

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from bench.conditioning import Condition
from bench.config.experiment import Recipe, Size
from bench.config.run import Run
from bench.data.latents import TrainingData, fill_cache
from bench.data.open import open_data
from bench.flops.count import FLOP_RULE
from bench.model import build_paradigm
from bench.parametrization import parameter_groups
from bench.randomness import step_seed

HEAD = {"width": 64, "depth": 2, "steps": 25, "time_features": 64, "multiplier": 1, "condition_at_input": True}
PARADIGMS = {
    "diffusion": ("autoencoder-kl", {}),
    "masked-token": ("autoencoder-fsq", {}),
    "next-token": ("autoencoder-fsq", {}),
    "mar": ("autoencoder-kl", {"head_options": {**HEAD, "prediction": "velocity", "noise_shift": 4.0}}),
}
"""Tokenizer and options of experiments/shapes.py."""
BASE = Size(width=64, depth=2, num_heads=2)
HEAD_WIDTH = 32
WIDTHS = (32, 64, 128)
FIRST_RATE = 4e-3
STEPS, BATCH = 250, 16
WARMUP = 0.1
"""Share of the steps."""
NUM_TRAINING, NUM_HELD_OUT = 8192, 1024
COLUMNS = ["paradigm", "parametrization", "width", "depth", "place", "loss"]
"""place: of the rate on the grid, see `rate_at`."""


class Study:
    """One paradigm's trials on shapes32, with the tokens encoded once."""

    def __init__(self, paradigm: str, folder: Path, steps: int = STEPS) -> None:
        self.paradigm, self.folder, self.steps = paradigm, folder, steps
        self.tokenizer, self.options = PARADIGMS[paradigm]
        self.dataset = open_data("shapes32")
        self.space, self.conditions = self.dataset.space(self.tokenizer), self.dataset.conditions
        encode, row = self.dataset.encoder(self.tokenizer), self.dataset.row_bytes(self.tokenizer)
        shift = lambda indices: range(indices.start + NUM_TRAINING, indices.stop + NUM_TRAINING)  # noqa: E731
        fill_cache(folder / "train" / self.tokenizer, NUM_TRAINING, row, encode, lambda done: None, chunk=2048)
        held_out = folder / "held-out" / self.tokenizer
        fill_cache(held_out, NUM_HELD_OUT, row, lambda indices: encode(shift(indices)), lambda done: None, chunk=2048)
        self.training, self.held_out = TrainingData(folder / "train" / self.tokenizer), TrainingData(held_out)

    def loss(self, size: Size, rate: float, *, completep: bool, seed: int = 0) -> float:
        """Mean loss on the held-out images after warm-up, constant rate and cooldown; infinite when it diverged."""
        recipe = Recipe(batch_size=BATCH, precision="fp32", completep_base=BASE if completep else None)
        run = Run(
            method=self.paradigm,
            paradigm=self.paradigm,
            paradigm_version=1,
            options=self.options,
            tokenizer=self.tokenizer,
            tokenizer_hash=self.dataset.tokenizer_hash(self.tokenizer),
            data=self.dataset.data_id,
            width=size.width,
            depth=size.depth,
            num_heads=size.num_heads,
            seed=seed,
            learning_rate=rate,
            recipe=recipe,
            flop_rule=FLOP_RULE,
            flops_budget=1,
        )
        paradigm = build_paradigm(run, self.space, self.conditions)
        groups = parameter_groups(paradigm, paradigm.scalings, rate=rate, weight_decay=recipe.weight_decay)
        multipliers = [group.pop("rate_multiplier") for group in groups]
        optimizer = torch.optim.AdamW(groups, betas=recipe.betas, fused=True)
        for step in range(self.steps):
            warm, left = (step + 1) / (WARMUP * self.steps), (1 - step / self.steps) / recipe.cooldown
            for group, multiplier in zip(optimizer.param_groups, multipliers, strict=True):
                group["lr"] = rate * multiplier * min(1.0, warm, left)
            tokens, words = self.training.batch(seed, step, BATCH)
            torch.manual_seed(step_seed(seed, step, "loss"))
            loss = paradigm.loss(tokens, Condition.of(words))[0].mean()
            if not torch.isfinite(loss):
                return math.inf
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(paradigm.parameters(), recipe.gradient_clip)
            optimizer.step()
        losses = []
        for step in range(NUM_HELD_OUT // 128):
            tokens, words = self.held_out.batch(0, step, 128)
            torch.manual_seed(step)
            with torch.no_grad():
                losses.append(paradigm.loss(tokens, Condition.of(words))[0].mean())
        return float(torch.stack(losses).mean())


def size(width: int, depth: int = BASE.depth) -> Size:
    """A size with heads as wide as the base's."""
    return Size(width=width, depth=depth, num_heads=max(1, width // HEAD_WIDTH))


def walk(loss: Callable[[int], float], start: int = 0) -> int:
    """The lowest place of a grid, walked downhill by twos from `start` and then by ones."""
    best = start
    for stride in (2, 1):
        while (down := min((best - stride, best + stride), key=loss)) != best and loss(down) < loss(best):
            best = down
    return best


def rate_at(place: int) -> float:
    """The grid of rates, in steps of sqrt(2)."""
    return FIRST_RATE * 2 ** (place / 2)


def main() -> None:
    path, names = Path(sys.argv[1]), sys.argv[2:] or list(PARADIGMS)
    torch.set_num_threads(1)
    losses = {}
    if path.exists():
        losses = {row[:-1]: row[-1] for row in pd.read_csv(path).itertuples(index=False, name=None)}
    for name, parametrization in itertools.product(names, ("completep", "standard")):
        study, best = Study(name, path.with_suffix(".cache")), 0
        for width in WIDTHS:

            def loss(place: int, study: Study = study, parametrization: str = parametrization, width: int = width) -> float:
                key = (study.paradigm, parametrization, width, BASE.depth, place)
                if key not in losses:
                    losses[key] = study.loss(size(width), rate_at(place), completep=parametrization == "completep")
                    pd.DataFrame([(*k, v) for k, v in losses.items()], columns=COLUMNS).to_csv(path, index=False)
                return losses[key]

            best = walk(loss, best)
            print(f"{name} {parametrization} width {width}: best {rate_at(best):.2e}, loss {loss(best):.4f}", flush=True)


if __name__ == "__main__":
    main()
