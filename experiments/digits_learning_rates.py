"""Learning rates for `digits.py`: the same five for each method at one budget, scored on validation conditions alone."""

import runpy
from pathlib import Path

DIGITS = runpy.run_path(str(Path(__file__).with_name("digits.py")))

EXPERIMENT = DIGITS["EXPERIMENT"].learning_rate_search(rates=(1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), budget=5e11, num_validation=500)
