"""The laws: four paradigms on the world with a long tail, six budgets over 2.5 decades with three seeds, and two above them.

The lower six are trained first (`UP_TO=1e12`); the seventh is forecast from their laws and only then trained (`UP_TO=3e12`), and
so is the eighth, at the size that the paths of best sizes name. Rates are those of `laws_learning_rates.py` at 48x4, carried to
the other sizes by CompleteP. On a GPU the same file runs at other budgets
(`BUDGET=1e16 DATA=sprites80`) where the sizes are given as well; `experiments/ladder.py` lets the budget choose them.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Evaluation, Experiment, Method, Recipe, Size

METHODS = runpy.run_path(str(Path(__file__).with_name("shapes.py")))["METHODS"]
SIZES = (
    Size(width=4, depth=4, num_heads=1),
    Size(width=8, depth=4, num_heads=1),
    Size(width=12, depth=4, num_heads=1),
    Size(width=16, depth=4, num_heads=1),
    Size(width=24, depth=4, num_heads=1),
    Size(width=32, depth=4, num_heads=1),
    Size(width=48, depth=4, num_heads=2),
    Size(width=64, depth=4, num_heads=2),
    Size(width=96, depth=4, num_heads=3),
)
BASE = SIZES[6]
RATES = {"diffusion": 8e-3, "next-token": 8e-3, "masked-token": 8e-3, "mar": 4e-3}
"""Lowest validation loss of five rates from 1e-3 to 1.6e-2 at 3e11 FLOPs (results/laws-learning-rates); none is at an edge."""
SHARED = ((1.0, 1.0), (1.0, 1.5), (0.6, 1.0), (0.6, 1.5))
"""Temperature and guidance: the same four for each method."""


def on_sprites(method: Method) -> Method:
    """A method of the shapes with the rate found here and four sampler settings."""
    (first, *_) = method.settings
    return replace(
        method,
        learning_rates=(RATES[method.paradigm],) * len(SIZES),
        settings=tuple(replace(first, temperature=temperature, guidance=guidance) for temperature, guidance in SHARED),
    )


EXPERIMENT = Experiment(
    name="laws",
    data="sprites40",
    methods=tuple(map(on_sprites, METHODS)),
    sizes=SIZES,
    budget=1e13,
    rungs=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0),
    num_seeds=(
        (3, 3, 0, 0, 0, 0, 0, 0),
        (3, 3, 3, 0, 0, 0, 0, 0),
        (0, 3, 3, 3, 0, 0, 0, 0),
        (0, 3, 3, 3, 3, 0, 0, 0),
        (0, 0, 3, 3, 3, 3, 0, 0),
        (0, 0, 0, 3, 3, 3, 1, 0),
        (0, 0, 0, 0, 3, 3, 3, 0),
        (0, 0, 0, 0, 0, 3, 3, 3),
        (0, 0, 0, 0, 0, 0, 1, 0),
    ),
    recipe=Recipe(batch_size=32, precision="fp32", completep_base=BASE, warmup_steps=20, num_training_images=262_144),
    evaluation=Evaluation(
        num_samples=1000, num_held_out=500, num_validation=250, num_reference=5000, throughput_batches=(64,), share=4.0
    ),
)
"""A run may cost four times its training to evaluate, so that small ones are sampled too; the ladder in all costs 24 % of its
training, since the top rung decides."""
