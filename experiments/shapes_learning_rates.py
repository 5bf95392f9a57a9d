"""The learning-rate search behind experiments/shapes.py: the same five rates for each method, on validation captions alone.

The smaller size is searched at half of the default top budget, and both sizes use its winner. Nothing here
sees a test caption.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Evaluation

DEFAULT = runpy.run_path(str(Path(__file__).parent / "shapes.py"))["EXPERIMENT"]
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)

EXPERIMENT = replace(
    DEFAULT,
    name="shapes-learning-rates",
    methods=tuple(replace(m, learning_rates=RATES) for m in DEFAULT.methods),
    sizes=DEFAULT.sizes[:1],
    budget=1e12,
    rungs=(1.0,),
    num_seeds=((1,),),
    evaluation=Evaluation(num_samples=0, num_held_out=0, num_validation=340, num_reference=1000),
    search=True,
)
