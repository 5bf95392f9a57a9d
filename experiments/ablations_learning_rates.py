"""The learning-rate search behind experiments/ablations.py: the same five rates for each variant, on validation captions."""

import runpy
from pathlib import Path

VARIANTS = runpy.run_path(str(Path(__file__).parent / "ablations.py"))["EXPERIMENT"]
EXPERIMENT = VARIANTS.learning_rate_search(rates=(4e-4, 1e-3, 2.5e-3, 6e-3, 1.5e-2), budget=4e11, num_validation=170)
