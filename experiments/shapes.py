"""The default experiment: four paradigms on two-object captions of 32x32 shapes, sized for two CPU cores.

Learning rates: each method had the same trials (`experiments/shapes_learning_rates.py`), scored on validation captions; the
table is in results/shapes-learning-rates/. Guidance is chosen per trained model on validation captions too.
"""

from bench.config import Evaluation, Experiment, Method, Recipe, Size

SIZES = (Size(width=48, depth=3, num_heads=2), Size(width=64, depth=4, num_heads=2))
RECIPE = Recipe(batch_size=32, precision="fp32")
GUIDANCE = (1.0, 2.0, 3.0)

MAR_OPTIONS = {
    "head_width": 64,
    "head_depth": 3,
    "head_steps": 25,
    "head_time_features": 64,
    "head_clip": 4.0,
    "multiplier": 2,
    "condition_at_input": True,
}
"""Departs from the published head, which learned nothing at this scale; see docs/log.md."""

METHODS = (
    Method(paradigm="diffusion", tokenizer="autoencoder-kl", learning_rates=(4e-3, 4e-3), guidance=GUIDANCE),
    Method(paradigm="next-token", tokenizer="autoencoder-fsq", learning_rates=(4e-3, 4e-3), guidance=GUIDANCE),
    Method(paradigm="masked-token", tokenizer="autoencoder-fsq", learning_rates=(4e-3, 4e-3), guidance=GUIDANCE),
    Method(paradigm="mar", tokenizer="autoencoder-kl", learning_rates=(4e-3, 4e-3), guidance=GUIDANCE, options=MAR_OPTIONS),
)

EXPERIMENT = Experiment(
    name="shapes",
    world="shapes32",
    methods=METHODS,
    sizes=SIZES,
    budget=2e12,
    rungs=(0.05, 0.15, 0.4, 1.0),
    num_seeds=(1, 1, 1, 2),
    recipe=RECIPE,
    evaluation=Evaluation(),
)
