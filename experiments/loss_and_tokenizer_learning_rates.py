"""The search behind experiments/loss_and_tokenizer.py, for the methods that `newer_learning_rates.py` has not searched."""

import runpy
from dataclasses import replace
from pathlib import Path

STUDY = runpy.run_path(str(Path(__file__).with_name("loss_and_tokenizer.py")))
EXPERIMENT = replace(
    STUDY["EXPERIMENT"], methods=tuple(method for method in STUDY["METHODS"] if method.name in STUDY["RATES"])
).learning_rate_search(rates=(1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2), budget=3e11, num_validation=250)
