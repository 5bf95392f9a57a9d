"""Ablations of the MAR paper (Li et al. 2024, tables 3 and 5, figures 4 to 6) on the sprites, at equal FLOPs.

Trained anew: three widths of the diffusion MLP, half, equal and twice the backbone's, and masked-token prediction. On the trained
models, by settings of the sampler: autoregressive steps, temperature, and steps and kind of the head's sampler, one at a time
around one base setting; of masked-token prediction every combination of steps, temperature and order, by confidence or random.
Every setting is a validation row of the table. Size and recipe are those of `newer.py`, and so are the rates of MAR with a head
as wide as the backbone and of masked-token prediction.
"""

import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bench.config import Json, Method, Setting, grid

HERE = Path(__file__).parent
NEWER = runpy.run_path(str(HERE / "newer.py"))
SHAPES = runpy.run_path(str(HERE / "shapes.py"))
FOUND = {method.name: method for method in NEWER["METHODS"]}
WIDTH = NEWER["SIZE"].width
RATES = {"mar-head-16": 2e-3, "mar-head-64": 4e-3}
"""Lowest validation loss of six rates at 3e11 FLOPs (results/ablations-learning-rates), of what no other search has tried;
none is at an edge."""


BASE = Setting(steps=8, guidance=1.0, temperature=1.0, options=SHAPES["MAR_SAMPLER"])


def head(sampler: str, steps: int) -> Mapping[str, Json]:
    """The head's sampler, in place of the base's probability flow of ten steps."""
    return {"head_options": {"sampler": sampler, "steps": steps}}


SETTINGS = (
    BASE,
    *(replace(BASE, steps=steps) for steps in (1, 2, 4, 16)),
    *(replace(BASE, temperature=temperature) for temperature in (0.4, 0.6, 0.8, 1.2)),
    *(replace(BASE, options=head("probability-flow", steps)) for steps in (2, 5, 20, 50)),
    *(replace(BASE, options=head("ancestral", steps)) for steps in (25, 100)),
)


def mar(relative_width: float) -> Method:
    """MAR with a diffusion MLP of a multiple of the backbone's width."""
    label = f"mar-head-{round(relative_width * WIDTH)}"
    method = FOUND["mar"]
    return replace(
        method,
        label=label,
        learning_rates=(RATES[label],) if label in RATES else method.learning_rates,
        options={"head_options": {**method.options["head_options"], "relative_width": relative_width}},
        settings=SETTINGS,
    )


METHODS = (
    mar(0.5),
    mar(1.0),
    mar(2.0),
    replace(
        FOUND["masked-token"],
        settings=grid(steps=(4, 8, 16), guidance=(1.0,), temperature=(0.8, 1.0, 1.2), options=({}, {"order": "random"})),
    ),
)
EXPERIMENT = replace(
    NEWER["EXPERIMENT"],
    name="ablations",
    methods=METHODS,
    budget=1e12,
    rungs=(1.0,),
    num_seeds=((3,),),
    evaluation=replace(NEWER["EXPERIMENT"].evaluation, num_validation=500),
)
"""Twice the validation images of `newer.py`, since what is read here are validation rows."""
