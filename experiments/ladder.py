"""What BUDGET alone asks for: four paradigms on the procedural world that the budget deserves, with models, batch, rates, images
and evaluation by the laws in bench/laws (docs/dial.md).

MAR's head grows with its backbone, as its published sizes do; the other options are those of experiments/shapes.py.
"""

from bench.config import Experiment, Ladder, Method, Recipe, grid

GUIDANCE = (1.0, 1.5, 2.5)
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

EXPERIMENT = Experiment(
    name="ladder",
    methods=(
        Method(paradigm="diffusion", tokenizer="autoencoder-kl", settings=grid(steps=(12, 24), guidance=GUIDANCE)),
        Method(paradigm="next-token", tokenizer="autoencoder-fsq", settings=grid(temperature=(1.0, 0.6), guidance=GUIDANCE)),
        Method(
            paradigm="masked-token",
            tokenizer="autoencoder-fsq",
            settings=grid(steps=(12,), temperature=(1.0, 0.6), guidance=GUIDANCE),
        ),
        Method(
            paradigm="mar",
            tokenizer="autoencoder-kl",
            options=MAR_OPTIONS,
            settings=grid(steps=(8,), temperature=(0.6, 0.3), guidance=GUIDANCE),
        ),
    ),
    ladder=Ladder(),
    budget=1e13,
    recipe=Recipe(batch_size=32),
)
