"""The search behind experiments/mar_table1.py, for the methods that no other search has tried: the trials of `newer.py`."""

import runpy
from dataclasses import replace
from pathlib import Path

TABLE = runpy.run_path(str(Path(__file__).with_name("mar_table1.py")))
TRIALS = runpy.run_path(str(Path(__file__).with_name("newer_learning_rates.py")))["TRIALS"]
METHODS = tuple(method for method in TABLE["METHODS"] if method.name in TABLE["RATES"])
EXPERIMENT = replace(TABLE["EXPERIMENT"], methods=METHODS).learning_rate_search(**TRIALS)
