"""A world with a long tail: four paradigms on captions of sprites whose 256 kinds follow Zipf's law, at level 1 (16 tokens).

Level 2 is `data="sprites80"` (64 tokens, up to four objects), level 3 `data="sprites160"` (256 tokens, up to eight). Learning
rates and sampler settings begin at those of `experiments/shapes.py`; search the rates again before quoting a result.
"""

from bench.config import Evaluation, Experiment, Json, Method, Recipe, Setting, Size, grid

SIZES = (
    Size(width=32, depth=4, num_heads=1),
    Size(width=64, depth=4, num_heads=2),
    Size(width=96, depth=4, num_heads=3),
)
GUIDANCE = (1.0, 1.5, 2.5)
TEMPERATURES = (1.0, 0.6)

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
"""As on the shapes (docs/log.md); the shift is the square root of the 16 channels."""
MAR_SAMPLER = {"head_options": {"sampler": "probability-flow", "steps": 10}}


def scaled(rate: float) -> tuple[float, ...]:
    """A rate at width 64, falling as the square root of the width, for each size."""
    return tuple(round(rate * (64 / size.width) ** 0.5, 6) for size in SIZES)


def settings(steps: int | None, **options: Json) -> tuple[Setting, ...]:
    """The same temperatures and scales of guidance for every method."""
    return grid(steps=(steps,), temperature=TEMPERATURES, guidance=GUIDANCE, options=(options,))


METHODS = (
    Method(paradigm="diffusion", tokenizer="autoencoder-kl", learning_rates=scaled(6e-3), settings=settings(12)),
    Method(paradigm="next-token", tokenizer="autoencoder-fsq", learning_rates=scaled(3e-3), settings=settings(None)),
    Method(paradigm="masked-token", tokenizer="autoencoder-fsq", learning_rates=scaled(4e-3), settings=settings(12)),
    Method(
        paradigm="mar",
        tokenizer="autoencoder-kl",
        learning_rates=scaled(1e-3),
        options=MAR_OPTIONS,
        settings=settings(8, **MAR_SAMPLER),
    ),
)

EXPERIMENT = Experiment(
    name="sprites",
    data="sprites40",
    methods=METHODS,
    sizes=SIZES,
    budget=1e13,
    rungs=(0.01, 0.03, 0.1, 0.3, 1.0),
    num_seeds=((1, 1, 1, 1, 1),) * 3,
    recipe=Recipe(batch_size=32, precision="fp32", num_training_images=131_072),
    evaluation=Evaluation(num_samples=1024, num_held_out=512, num_validation=256, throughput_batches=(64,)),
)
