"""The search behind experiments/ablations.py, for the methods that no other search has tried: the trials of `newer.py`."""

import runpy
from dataclasses import replace
from pathlib import Path

STUDY = runpy.run_path(str(Path(__file__).with_name("ablations.py")))
TRIALS = runpy.run_path(str(Path(__file__).with_name("newer_learning_rates.py")))["TRIALS"]
METHODS = tuple(method for method in STUDY["METHODS"] if method.name in STUDY["RATES"])
EXPERIMENT = replace(STUDY["EXPERIMENT"], methods=METHODS).learning_rate_search(**TRIALS)
