"""The learning-rate search behind experiments/newer.py: the same six rates for each method, on validation captions alone."""

import runpy
from pathlib import Path

NEWER = runpy.run_path(str(Path(__file__).with_name("newer.py")))["EXPERIMENT"]
TRIALS = {"rates": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2), "budget": 3e11, "num_validation": 250}
EXPERIMENT = NEWER.learning_rate_search(**TRIALS)
