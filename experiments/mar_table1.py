"""Table 1 of the MAR paper (Li et al. 2024) on the sprites: order x attention x tokens per step x loss, at equal FLOPs.

All eight cells, and two more heads on the default cell: the squared error, which the paper names as the naive baseline, and a
Gaussian mixture (GIVT). Codes and latents come from twin autoencoders on one grid. The paper's rows differ in tokenizer and
schedule too; here they do not. Size, recipe and evaluation are those of `newer.py`, and so are the rates of methods that train
as one of `newer.py` or `loss_and_tokenizer.py` does. One token per step and several are one trained network, sampled in 16 steps
and in 8. Each method is tried at the same twelve pairs of temperature and guidance.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Json, Method, grid

HERE = Path(__file__).parent
NEWER = runpy.run_path(str(HERE / "newer.py"))
LOSSES = runpy.run_path(str(HERE / "loss_and_tokenizer.py"))
MAR_SAMPLER = runpy.run_path(str(HERE / "shapes.py"))["MAR_SAMPLER"]
FOUND = {method.name: method for method in LOSSES["METHODS"]}
NUM_TOKENS = 16
TEMPERATURES, GUIDANCE = (1.2, 1.0, 0.8, 0.6), (1.0, 1.5, 2.5)
RATES = {
    "random-causal-one-cross-entropy": 8e-3,
    "random-causal-one-diffusion": 8e-3,
    "random-bidirectional-several-squared-error": 4e-3,
    "random-bidirectional-several-mixture": 8e-3,
}
"""Lowest validation loss of six rates at 3e11 FLOPs (results/mar-table1-learning-rates), of what no other search has tried;
none is at an edge."""


def cell(label: str, like: str, steps: int | None = None, **options: Json) -> Method:
    """A row of the table: a method of `loss_and_tokenizer.py` with other options, or with other steps of its sampler."""
    method = FOUND[like]
    options = {**method.options, **options} if "head" not in options else options
    sampler = MAR_SAMPLER if "head_options" in options else {}
    return replace(
        method,
        label=label,
        learning_rates=(RATES[label],) if label in RATES else method.learning_rates,
        options=options,
        settings=grid(steps=(steps,), temperature=TEMPERATURES, guidance=GUIDANCE, options=(sampler,)),
    )


ONE, SEVERAL = NUM_TOKENS, NUM_TOKENS // 2
METHODS = (
    cell("raster-causal-one-cross-entropy", "next-token"),
    cell("raster-causal-one-diffusion", "next-token-diffusion-loss"),
    cell("random-causal-one-cross-entropy", "next-token", order="random"),
    cell("random-causal-one-diffusion", "next-token-diffusion-loss", order="random"),
    cell("random-bidirectional-one-cross-entropy", "mar-cross-entropy", ONE),
    cell("random-bidirectional-one-diffusion", "mar", ONE),
    cell("random-bidirectional-several-cross-entropy", "mar-cross-entropy", SEVERAL),
    cell("random-bidirectional-several-diffusion", "mar", SEVERAL),
    cell("random-bidirectional-several-squared-error", "mar", SEVERAL, head="squared-error"),
    cell("random-bidirectional-several-mixture", "mar", SEVERAL, head="mixture"),
)
EXPERIMENT = replace(
    NEWER["EXPERIMENT"],
    name="mar-table1",
    methods=METHODS,
    budget=3e11,
    rungs=(1.0,),
    num_seeds=((3,),),
)
