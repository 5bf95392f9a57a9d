"""What inference compute buys: the laws' four methods at two sizes and one training budget, for `results/inference/fronts.py`.

3e12 FLOPs, where three of the four follow some captions (at 1e12 next-token alone does); one seed, since each one costs about
seventeen minutes of two hyperthreads. The sweep measures the validation loss alone: sampler settings and the best of n samples
are measured by fronts.py, which lists them, from the weights that the sweep leaves. The runs are those of `laws.py`, by name too.
On a GPU the same file runs at other budgets (`BUDGET=1e16 DATA=sprites80`).
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Evaluation, Experiment

LAWS = runpy.run_path(str(Path(__file__).with_name("laws.py")))
SIZES = LAWS["SIZES"][5:7]
EXPERIMENT = Experiment(
    name="inference",
    data="sprites40",
    methods=tuple(
        replace(method, learning_rates=(LAWS["RATES"][method.paradigm],) * len(SIZES)) for method in LAWS["EXPERIMENT"].methods
    ),
    sizes=SIZES,
    budget=3e12,
    rungs=(1.0,),
    num_seeds=((1,),) * len(SIZES),
    recipe=LAWS["EXPERIMENT"].recipe,
    evaluation=Evaluation(num_samples=500, num_held_out=0, num_validation=250, num_reference=5000, share=0.01),
)
"""num_validation and num_samples are the captions that fronts.py chooses on and reports on; FID is biased by their number, so
that it is the same for all points of a front."""
