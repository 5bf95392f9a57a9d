"""Methods newer than the two papers beside the papers' four, at equal FLOPs on the world with a long tail.

Three budgets, one size, three seeds. Rates: `newer_learning_rates.py`, the same trials for every method. Samplers: the same four
pairs of temperature and guidance for each; steps are those at which the method is meant to be used (one for MeanFlow, one per
token for next-token prediction and the flow, one per grid for next-scale prediction, those of a cell or a block for next-cell
prediction and block diffusion).
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Evaluation, Experiment, Json, Method, Recipe, Setting, Size

LAWS = runpy.run_path(str(Path(__file__).with_name("laws.py")))
SIZE = Size(width=32, depth=4, num_heads=1)
RATES = {
    "diffusion": 1.6e-2,
    "next-token": 4e-3,
    "masked-token": 4e-3,
    "mar": 2e-3,
    "masked-token-elbo": 4e-3,
    "uniform-diffusion": 8e-3,
    "block-diffusion": 4e-3,
    "next-scale": 8e-3,
    "next-token-energy": 8e-3,
    "normalizing-flow": 1.6e-2,
    "mean-flow": 4e-3,
    "next-cell": 1.6e-2,
    "pixel-diffusion": 8e-3,
}
"""Lowest validation loss of six rates from 1e-3 to 3.2e-2 at 3e11 FLOPs (results/newer-learning-rates); none is at an edge.
That of MeanFlow has the lowest FID: its loss falls up to the highest rate, at which one step draws noise (FID 25 against 7)."""


def newer(paradigm: str, tokenizer: str, steps: int | None, label: str = "", **options: Json) -> Method:
    """A method beyond the papers' four."""
    return Method(
        paradigm=paradigm,
        label=label,
        tokenizer=tokenizer,
        learning_rates=(RATES[label or paradigm],),
        options=options,
        settings=tuple(
            Setting(steps=steps, temperature=temperature, guidance=guidance) for temperature, guidance in LAWS["SHARED"]
        ),
    )


METHODS = (
    *(replace(method, learning_rates=(RATES[method.name],)) for method in LAWS["EXPERIMENT"].methods),
    newer("masked-token", "autoencoder-fsq", 12, label="masked-token-elbo", weight="elbo", order="random", schedule="linear"),
    newer("uniform-diffusion", "autoencoder-fsq", 16),
    newer("block-diffusion", "autoencoder-fsq", 4),
    newer("next-scale", "autoencoder-scales", None),
    newer("next-token-energy", "autoencoder-kl", None, head_options={"relative_width": 1.0, "depth": 2}),
    newer("normalizing-flow", "autoencoder-kl", None),
    newer("mean-flow", "autoencoder-kl", 1),
    newer("next-cell", "autoencoder-kl", 8),
    newer("pixel-diffusion", "pixels", 12),
)
EXPERIMENT = Experiment(
    name="newer",
    data="sprites40",
    methods=METHODS,
    sizes=(SIZE,),
    budget=1e12,
    rungs=(0.1, 0.3, 1.0),
    num_seeds=((3, 3, 3),),
    recipe=Recipe(batch_size=32, precision="fp32", completep_base=SIZE, warmup_steps=20, num_training_images=131_072),
    evaluation=Evaluation(
        num_samples=1000, num_held_out=500, num_validation=250, num_reference=5000, throughput_batches=(64,), share=10.0
    ),
)
