"""The learning-rate search behind experiments/laws.py: the same five rates for each method at the base size."""

import runpy
from dataclasses import replace
from pathlib import Path

LAWS = runpy.run_path(str(Path(__file__).with_name("laws.py")))
EXPERIMENT = replace(
    LAWS["EXPERIMENT"].learning_rate_search(rates=(1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), budget=3e11, num_validation=250),
    sizes=(LAWS["BASE"],),
)
