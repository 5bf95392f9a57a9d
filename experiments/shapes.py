"""The default experiment: four paradigms on two-object captions of 32x32 shapes, sized for two CPU cores.

Learning rates: each method had the same trials at the smaller width (`experiments/shapes_learning_rates.py`), scored on
validation captions; the table is in results/shapes-learning-rates/. Sampler settings, the same nine pairs of temperature and
guidance for each method, are chosen per trained model on validation captions too.
"""

from bench.config import Evaluation, Experiment, Json, Method, Recipe, Setting, Size, grid

SIZES = (Size(width=64, depth=4, num_heads=2), Size(width=96, depth=4, num_heads=3))
RECIPE = Recipe(batch_size=32, precision="fp32")
EVALUATION = Evaluation(num_samples=572, num_held_out=256, num_validation=170, throughput_batches=(64,))
"""Two images for each of 286 test captions; 170 validation captions."""
GUIDANCE = (1.0, 1.5, 2.5)
TEMPERATURES = (1.0, 0.6, 0.3)

MAR_OPTIONS = {
    "head_options": {
        "width": 64,
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
The shift is the square root of the 16 channels."""

MAR_SAMPLER = {"head_options": {"sampler": "probability-flow", "steps": 10}}
"""Draws the spread that the head learned, where the ancestral sampler of its 25 steps draws about half of the variance
(docs/log.md). A setting of the sampler: no trained model depends on it."""


def scaled(rate: float) -> tuple[float, ...]:
    """The rate found at the smallest width, falling as 1 / width (Yang et al. 2022, hidden weights), for each size."""
    return tuple(rate * SIZES[0].width / size.width for size in SIZES)


def settings(steps: int | None, **options: Json) -> tuple[Setting, ...]:
    """The same temperatures and scales of guidance for every method."""
    return grid(steps=(steps,), temperature=TEMPERATURES, guidance=GUIDANCE, options=(options,))


METHODS = (
    Method(
        paradigm="diffusion",
        tokenizer="autoencoder-kl",
        learning_rates=scaled(6e-3),
        settings=settings(12),
    ),
    Method(
        paradigm="next-token",
        tokenizer="autoencoder-fsq",
        learning_rates=scaled(3e-3),
        settings=settings(None),
    ),
    Method(
        paradigm="masked-token",
        tokenizer="autoencoder-fsq",
        learning_rates=scaled(4e-3),
        settings=settings(12),
    ),
    Method(
        paradigm="mar",
        tokenizer="autoencoder-kl",
        learning_rates=scaled(1e-3),
        options=MAR_OPTIONS,
        settings=settings(8, **MAR_SAMPLER),
    ),
)

EXPERIMENT = Experiment(
    name="shapes",
    flop_rule="meta-v1",
    data="shapes32",
    methods=METHODS,
    sizes=SIZES,
    budget=2e12,
    rungs=(0.1, 0.3, 1.0),
    num_seeds=((1, 1, 2), (1, 1, 1)),
    recipe=RECIPE,
    evaluation=EVALUATION,
)
