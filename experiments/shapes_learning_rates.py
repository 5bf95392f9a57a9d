"""The learning-rate search behind experiments/shapes.py: the same six rates for each method at one size, on validation captions
alone."""

import runpy
from dataclasses import replace
from pathlib import Path

SHAPES = runpy.run_path(str(Path(__file__).with_name("shapes.py")))
EXPERIMENT = replace(
    SHAPES["EXPERIMENT"].learning_rate_search(rates=(1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2), budget=2e11, num_validation=340),
    sizes=(SHAPES["BASE"],),
)
