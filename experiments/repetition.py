"""Which paradigm suffers first when images repeat: equal compute on fewer and fewer different images.

The laws' four methods and rates at 24x4 and 1e11 FLOPs, three seeds, and from 16,384 different images (seen .8 to 1.4 times) down
to 64. Measured by the validation loss alone; nothing is sampled.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Evaluation, Experiment

LAWS = runpy.run_path(str(Path(__file__).with_name("laws.py")))
COUNTS = (16_384, 4096, 1024, 256, 64)
EXPERIMENT = Experiment(
    name="repetition",
    data="sprites40",
    methods=tuple(
        replace(
            method,
            label=f"{method.name}-{count}",
            learning_rates=(LAWS["RATES"][method.paradigm],),
            num_training_images=count,
        )
        for method in LAWS["EXPERIMENT"].methods
        for count in COUNTS
    ),
    sizes=(LAWS["SIZES"][4],),
    budget=1e11,
    rungs=(1.0,),
    num_seeds=((3,),),
    recipe=LAWS["EXPERIMENT"].recipe,
    evaluation=Evaluation(share=0.01),
)
