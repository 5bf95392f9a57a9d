"""The default experiment: four paradigms on two-object captions of 32x32 shapes, at four sizes around each budget's best, for a
first look in a quarter of an hour of two CPU cores.

Learning rates: each method had the same trials at one size (`experiments/shapes_learning_rates.py`); those with the lowest FID on
validation captions are used, and no other rate's accuracy is higher by more than its error. The table is in
results/shapes-learning-rates/. CompleteP carries them to the other sizes. Sampler settings, the same four pairs of temperature
and guidance for each method, are chosen per trained model on validation captions too.
"""

from bench.config import Evaluation, Experiment, Json, Method, Recipe, Setting, Size, grid

SIZES = (
    Size(width=16, depth=4, num_heads=1),
    Size(width=24, depth=4, num_heads=1),
    Size(width=32, depth=4, num_heads=1),
    Size(width=48, depth=4, num_heads=2),
)
BASE = SIZES[1]
RECIPE = Recipe(batch_size=32, precision="fp32", completep_base=BASE, warmup_steps=20)
EVALUATION = Evaluation(num_samples=572, num_held_out=256, num_validation=170, throughput_batches=(64,), share=4.0)
"""Two images for each of 286 test captions; 170 validation captions. A run may cost four times its training to evaluate; small
ones whose samples cost more have their validation loss alone."""
GUIDANCE = (1.0, 1.5)
TEMPERATURES = (1.0, 0.6)

MAR_OPTIONS = {
    "head_options": {
        "relative_width": 1.0,
        "depth": 2,
        "steps": 25,
        "time_features": 64,
        "prediction": "velocity",
        "noise_shift": 4.0,
        "multiplier": 1,
        "condition_at_input": True,
    }
}
"""Departs from the published head, whose noise loss learned no binding of colors to objects at this scale (docs/log.md).
The shift is the square root of the 16 channels. The head is as wide as the backbone; the published ones are 1.2 to 1.33 times
as wide (Li et al. 2024)."""

MAR_SAMPLER = {"head_options": {"sampler": "probability-flow", "steps": 10}}
"""Draws the spread that the head learned, where the ancestral sampler of its 25 steps draws about half of the variance
(docs/log.md). A setting of the sampler: no trained model depends on it."""


def settings(steps: int | None, **options: Json) -> tuple[Setting, ...]:
    """The same temperatures and scales of guidance for every method."""
    return grid(steps=(steps,), temperature=TEMPERATURES, guidance=GUIDANCE, options=(options,))


METHODS = (
    Method(
        paradigm="diffusion",
        tokenizer="autoencoder-kl",
        learning_rates=(1.6e-2,) * len(SIZES),
        settings=settings(12),
    ),
    Method(
        paradigm="next-token",
        tokenizer="autoencoder-fsq",
        learning_rates=(4e-3,) * len(SIZES),
        settings=settings(None),
    ),
    Method(
        paradigm="masked-token",
        tokenizer="autoencoder-fsq",
        learning_rates=(4e-3,) * len(SIZES),
        settings=settings(12),
    ),
    Method(
        paradigm="mar",
        tokenizer="autoencoder-kl",
        learning_rates=(4e-3,) * len(SIZES),
        options=MAR_OPTIONS,
        settings=settings(8, **MAR_SAMPLER),
    ),
)

EXPERIMENT = Experiment(
    name="shapes",
    data="shapes32",
    methods=METHODS,
    sizes=SIZES,
    budget=1e11,
    rungs=(0.2, 0.6, 1.0),
    num_seeds=((1, 1, 3), (1, 1, 3), (1, 1, 1), (0, 1, 1)),
    recipe=RECIPE,
    evaluation=EVALUATION,
)
