"""From a table to numbers and verdicts. No torch."""
