"""The larger preset: 64x64, five shapes, eight colors, 80 object types, four relations; for those with a GPU.

Its autoencoders and CLIP are not shipped: `paradigm-bench prepare shapes64` makes them. Learning rates are starting points, taken
over from the 32x32 search and scaled down with width; search them again (`search=True`) before quoting a result.
"""

from bench.config import Evaluation, Experiment, Method, Recipe, Size, grid

SIZES = (
    Size(width=192, depth=8, num_heads=3),
    Size(width=384, depth=12, num_heads=6),
    Size(width=768, depth=12, num_heads=12),
)
GUIDANCE = (1.0, 1.5, 2.0, 3.0, 4.0)
MAR_OPTIONS = {"head_options": {"width": 256, "depth": 3, "multiplier": 4, "clip": 4.0, "condition_at_input": True}}
RATES = (1e-3, 5e-4, 3e-4)

EXPERIMENT = Experiment(
    name="shapes64",
    flop_rule="meta-v1",
    data="shapes64",
    methods=(
        Method(
            paradigm="diffusion",
            tokenizer="autoencoder-kl",
            learning_rates=RATES,
            settings=grid(steps=(25, 50), guidance=GUIDANCE),
        ),
        Method(
            paradigm="next-token",
            tokenizer="autoencoder-fsq",
            learning_rates=RATES,
            settings=grid(temperature=(1.0, 0.7), guidance=GUIDANCE),
        ),
        Method(
            paradigm="masked-token",
            tokenizer="autoencoder-fsq",
            learning_rates=RATES,
            settings=grid(steps=(16,), temperature=(1.0, 0.7), guidance=GUIDANCE),
        ),
        Method(
            paradigm="mar",
            tokenizer="autoencoder-kl",
            learning_rates=RATES,
            options=MAR_OPTIONS,
            settings=grid(steps=(32,), temperature=(1.0, 0.7), guidance=GUIDANCE),
        ),
    ),
    sizes=SIZES,
    budget=1e17,
    rungs=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    num_seeds=((3, 3, 1, 1, 1, 3),) * 3,
    recipe=Recipe(batch_size=128, precision="bf16", warmup_steps=200, num_training_images=1_000_000),
    evaluation=Evaluation(num_samples=5000, num_held_out=2000, num_validation=1000, num_reference=20_000, latency_calls=64),
)
