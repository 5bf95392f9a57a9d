"""Which part of a gap is the loss's and which the tokenizer's: cross-entropy reads codes, diffusion latents of another network.

Beside the methods of `newer.py` that read the codes or the continuous twin's latents stand the same losses on the latents that
the discrete twin quantizes, so that three rows differ in one thing each: cross-entropy on codes, Diffusion Loss on the latents
before they become codes (decoding quantizes them), Diffusion Loss on the continuous twin's latents. Once for next-token
prediction and once for masked autoregression; diffusion on both latents. The size, budgets, seeds and trials are those of
`newer.py`, whose runs are these runs where the method is the same.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Json, Method

NEWER = runpy.run_path(str(Path(__file__).with_name("newer.py")))
SHAPES = runpy.run_path(str(Path(__file__).with_name("shapes.py")))
FOUND = {method.name: method for method in NEWER["METHODS"]}
RATES = {
    "diffusion-fsq": 8e-3,
    "mar-fsq": 2e-3,
    "mar-cross-entropy": 8e-3,
    "next-token-diffusion-loss": 8e-3,
    "next-token-diffusion-loss-fsq": 8e-3,
}
"""Lowest validation loss of six rates at 3e11 FLOPs (results/loss-and-tokenizer-learning-rates); none is at an edge."""
HEAD = SHAPES["MAR_OPTIONS"]["head_options"]
FSQ_HEAD = {**HEAD, "noise_shift": 2.0}
"""The shift is the square root of the channels, here as there: 4 before quantization, 16 of the continuous twin."""


def variant(label: str, like: str, paradigm: str, tokenizer: str, **options: Json) -> Method:
    """A method whose sampler has the steps of another; Diffusion Loss draws with that of MAR."""
    sampler = SHAPES["MAR_SAMPLER"] if "head_options" in options else {}
    return replace(
        FOUND[like],
        label=label,
        paradigm=paradigm,
        tokenizer=tokenizer,
        learning_rates=(RATES[label],),
        options=options,
        settings=tuple(replace(setting, options=sampler) for setting in FOUND[like].settings),
    )


METHODS = (
    *(FOUND[name] for name in ("diffusion", "next-token", "masked-token", "mar")),
    variant("diffusion-fsq", "diffusion", "diffusion", "autoencoder-fsq-latents"),
    variant("mar-cross-entropy", "mar", "mar-discrete", "autoencoder-fsq"),
    variant("mar-fsq", "mar", "mar", "autoencoder-fsq-latents", head_options=FSQ_HEAD),
    variant("next-token-diffusion-loss", "next-token", "next-token-continuous", "autoencoder-kl", head_options=HEAD),
    variant(
        "next-token-diffusion-loss-fsq", "next-token", "next-token-continuous", "autoencoder-fsq-latents", head_options=FSQ_HEAD
    ),
)
EXPERIMENT = replace(NEWER["EXPERIMENT"], name="loss-and-tokenizer", methods=METHODS)
