"""From an experiment and a budget to counted runs."""
