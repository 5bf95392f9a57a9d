"""What BUDGET alone asks for: the four paradigms of `shapes.py` on the procedural world that the budget deserves, with models,
batch, rates, images and evaluation by the laws in bench/laws (docs/dial.md).
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Experiment, Ladder, Method, Recipe

SHAPES = runpy.run_path(str(Path(__file__).with_name("shapes.py")))
HEAD = {name: value for name, value in SHAPES["MAR_OPTIONS"]["head_options"].items() if name != "width"}
GROWING_HEAD = {"head_options": {**HEAD, "relative_width": 1.0}}
"""MAR's head is as wide as the backbone at every size; the published ones are 1.2 to 1.33 times as wide (Li et al. 2024)."""


def carried(method: Method) -> Method:
    """The method with the law's rate."""
    return replace(method, learning_rates=(), options=GROWING_HEAD if method.paradigm == "mar" else method.options)


RECIPE = Recipe(batch_size=32, completep_base=SHAPES["SIZES"][0])
"""CompleteP carries the rates from the size at which they were searched (docs/parametrization.md)."""
EXPERIMENT = Experiment(
    name="ladder", methods=tuple(map(carried, SHAPES["METHODS"])), ladder=Ladder(), recipe=RECIPE, budget=1e13
)
