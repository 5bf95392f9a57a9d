"""A world with a long tail: four paradigms on captions of sprites whose 256 kinds follow Zipf's law, at level 1 (16 tokens).

Level 2 is `data="sprites80"` (64 tokens, up to four objects), level 3 `data="sprites160"` (256 tokens, up to eight). Learning
rates and sampler settings begin at those of `experiments/shapes.py`; search the rates again before quoting a result.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Evaluation, Experiment, Method, Recipe, Size

SHAPES = runpy.run_path(str(Path(__file__).with_name("shapes.py")))
SIZES = (
    Size(width=32, depth=4, num_heads=1),
    Size(width=64, depth=4, num_heads=2),
    Size(width=96, depth=4, num_heads=3),
)
TEMPERATURES = (1.0, 0.6)


def on_sprites(method: Method) -> Method:
    """A method of the shapes at these sizes: its rate at width 64, falling as the square root of the width; fewer settings."""
    (rate, *_) = method.learning_rates
    return replace(
        method,
        learning_rates=tuple(round(rate * (64 / size.width) ** 0.5, 6) for size in SIZES),
        settings=tuple(setting for setting in method.settings if setting.temperature in TEMPERATURES),
    )


EXPERIMENT = Experiment(
    name="sprites",
    data="sprites40",
    methods=tuple(map(on_sprites, SHAPES["METHODS"])),
    sizes=SIZES,
    budget=1e13,
    rungs=(0.01, 0.03, 0.1, 0.3, 1.0),
    num_seeds=((1, 1, 1, 1, 1),) * 3,
    recipe=Recipe(batch_size=32, precision="fp32", num_training_images=131_072),
    evaluation=Evaluation(num_samples=1024, num_held_out=512, num_validation=256, throughput_batches=(64,)),
)
