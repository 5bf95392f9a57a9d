"""Ablations of the MAR paper (Li et al. 2024, tables 3 and 5, figures 4 to 6) on the shapes, at equal FLOPs.

Trained anew: three widths of the diffusion MLP, and masked-token prediction. On the trained models, by settings of the sampler:
diffusion steps, temperature and autoregressive steps around one base setting; order on the fly by confidence or random. Every
setting is a validation row of the table. Learning rates: experiments/ablations_learning_rates.py.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Experiment, Method, Setting, grid

TABLE1 = runpy.run_path(str(Path(__file__).with_name("mar_table1.py")))
BASE = {"steps": 8, "guidance": 1.5, "temperature": 0.5}
SIZE, RECIPE, HEAD = TABLE1["SIZE"], TABLE1["RECIPE"], TABLE1["DIFFUSION_HEAD"]
SETTINGS = (
    Setting(**BASE),
    *(Setting(**{**BASE, "steps": steps}) for steps in (1, 2, 4, 16)),
    *(Setting(**{**BASE, "temperature": temperature}) for temperature in (0.2, 0.35, 0.7, 1.0)),
    *(Setting(**BASE, options={"head_options": {"steps": steps}}) for steps in (5, 10, 50, 100)),
)


def mar(width: int, rate: float) -> Method:
    """MAR with a diffusion MLP of one width."""
    return Method(
        label=f"mar-head-{width}",
        paradigm="mar",
        tokenizer="autoencoder-kl",
        learning_rates=(rate,),
        options={"head_options": {**HEAD, "width": width}},
        settings=SETTINGS,
    )


EXPERIMENT = Experiment(
    name="ablations",
    flop_rule="meta-v1",
    data="shapes32",
    methods=(
        mar(32, 2.5e-3),
        mar(64, 2.5e-3),
        mar(128, 2.5e-3),
        Method(
            paradigm="masked-token",
            tokenizer="autoencoder-fsq",
            learning_rates=(6e-3,),
            settings=grid(steps=(4, 8, 16), guidance=(1.5,), temperature=(1.0, 0.6), options=({}, {"order": "random"})),
        ),
    ),
    sizes=(SIZE,),
    budget=8e11,
    rungs=(1.0,),
    num_seeds=((3,),),
    recipe=RECIPE,
    evaluation=replace(TABLE1["EXPERIMENT"].evaluation, num_validation=340),
)
