"""The learning-rate search behind experiments/shapes.py: the same eight rates for each method, on validation captions alone."""

import runpy
from pathlib import Path

DEFAULT = runpy.run_path(str(Path(__file__).parent / "shapes.py"))["EXPERIMENT"]
EXPERIMENT = DEFAULT.learning_rate_search(
    rates=(5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 8e-3, 1.6e-2), budget=1e12, num_validation=340
)
