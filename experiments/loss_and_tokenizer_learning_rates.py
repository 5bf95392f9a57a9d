"""The search behind experiments/loss_and_tokenizer.py, for the methods that `newer_learning_rates.py` has not searched."""

import runpy
from dataclasses import replace
from pathlib import Path

STUDY = runpy.run_path(str(Path(__file__).with_name("loss_and_tokenizer.py")))
TRIALS = runpy.run_path(str(Path(__file__).with_name("newer_learning_rates.py")))["TRIALS"]
METHODS = tuple(method for method in STUDY["METHODS"] if method.name in STUDY["RATES"])
EXPERIMENT = replace(STUDY["EXPERIMENT"], methods=METHODS).learning_rate_search(**TRIALS)
