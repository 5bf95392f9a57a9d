"""The reference band: ten seeds of the four built-ins at the smallest rung and size of `experiments/shapes.py`, from which the
rules of a submission read how far honest runs lie apart (`docs/submissions.md`). Its runs have the run_ids that the default sweep
gives them, seed by seed. They are measured by their validation loss alone, which costs a tenth of the rest; without `evaluation`
below the band holds FID and prompt accuracy too.
"""

import runpy
from dataclasses import replace
from pathlib import Path

SHAPES = runpy.run_path(str(Path(__file__).with_name("shapes.py")))["EXPERIMENT"]
EXPERIMENT = replace(
    SHAPES,
    name="reference-band",
    methods=tuple(replace(method, learning_rates=method.learning_rates[:1]) for method in SHAPES.methods),
    sizes=SHAPES.sizes[:1],
    budget=SHAPES.budget * SHAPES.rungs[0],
    rungs=(1.0,),
    num_seeds=((10,),),
    evaluation=replace(SHAPES.evaluation, share=1e-9),
)
