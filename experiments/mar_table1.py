"""Table 1 of the MAR paper (Li et al. 2024) on the shapes: order x attention x tokens per step x loss, at equal FLOPs.

All eight cells, and two more heads on the default cell: the squared error, which the paper names as the naive baseline, and a
Gaussian mixture (GIVT). Codes and latents come from twin autoencoders on one grid. The paper's rows differ in tokenizer and
schedule too; here they do not. Learning rates: experiments/mar_table1_learning_rates.py.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Experiment, Json, Method, Recipe, Setting, Size, grid

DEFAULT = runpy.run_path(str(Path(__file__).parent / "shapes.py"))
NUM_TOKENS = 16
SIZE = Size(width=64, depth=4, num_heads=2)
RECIPE = Recipe(batch_size=32, precision="fp32")
DIFFUSION_HEAD = {name: value for name, value in DEFAULT["MAR_OPTIONS"]["head_options"].items() if name != "relative_width"}
DIFFUSION_HEAD["width"] = SIZE.width
MAR_SAMPLER = DEFAULT["MAR_SAMPLER"]


def settings(steps: int | None, **options: Json) -> tuple[Setting, ...]:
    """Nine pairs of temperature and guidance."""
    return grid(steps=(steps,), temperature=(1.0, 0.6, 0.3), guidance=(1.0, 1.5, 2.5), options=(options,))


def cross_entropy(label: str, paradigm: str, rate: float, steps: int | None, **options: object) -> Method:
    """A variant that reads codes."""
    return Method(
        label=f"{label}-cross-entropy",
        paradigm=paradigm,
        tokenizer="autoencoder-fsq",
        learning_rates=(rate,),
        options=options,
        settings=settings(steps),
    )


def continuous(label: str, paradigm: str, rate: float, steps: int | None, head: str = "diffusion", **options: object) -> Method:
    """A variant that reads latents."""
    head_options, sampler = (DIFFUSION_HEAD, MAR_SAMPLER) if head == "diffusion" else ({}, {})
    return Method(
        label=f"{label}-{head}",
        paradigm=paradigm,
        tokenizer="autoencoder-kl",
        learning_rates=(rate,),
        options={"head": head, "head_options": head_options, **options},
        settings=settings(steps, **sampler),
    )


METHODS = (
    cross_entropy("raster-causal-one", "next-token", 2.5e-3, None),
    continuous("raster-causal-one", "next-token-continuous", 6e-3, None),
    cross_entropy("random-causal-one", "next-token", 2.5e-3, None, order="random"),
    continuous("random-causal-one", "next-token-continuous", 2.5e-3, None, order="random"),
    cross_entropy("random-bidirectional-one", "mar-discrete", 2.5e-3, NUM_TOKENS),
    continuous("random-bidirectional-one", "mar", 2.5e-3, NUM_TOKENS),
    cross_entropy("random-bidirectional-several", "mar-discrete", 1e-3, NUM_TOKENS // 2),
    continuous("random-bidirectional-several", "mar", 2.5e-3, NUM_TOKENS // 2),
    continuous("random-bidirectional-several", "mar", 6e-3, NUM_TOKENS // 2, head="squared-error"),
    continuous("random-bidirectional-several", "mar", 2.5e-3, NUM_TOKENS // 2, head="mixture"),
)

EXPERIMENT = Experiment(
    name="mar-table1",
    flop_rule="meta-v1",
    data="shapes32",
    methods=METHODS,
    sizes=(SIZE,),
    budget=8e11,
    rungs=(1.0,),
    num_seeds=((3,),),
    recipe=RECIPE,
    evaluation=replace(DEFAULT["EVALUATION"], share=None),
)
