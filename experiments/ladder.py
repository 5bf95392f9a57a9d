"""What BUDGET alone asks for: the four paradigms of `shapes.py` on the procedural world that the budget deserves, with models,
batch, rates, images and evaluation by the laws in bench/laws (docs/dial.md).
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Experiment, Ladder, Recipe

SHAPES = runpy.run_path(str(Path(__file__).with_name("shapes.py")))
RECIPE = Recipe(batch_size=32, completep_base=SHAPES["BASE"])
"""CompleteP carries the rates from the size at which they were searched (docs/parametrization.md)."""
EXPERIMENT = Experiment(
    name="ladder",
    methods=tuple(replace(method, learning_rates=()) for method in SHAPES["METHODS"]),
    ladder=Ladder(),
    recipe=RECIPE,
    budget=1e13,
)
