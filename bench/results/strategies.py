"""What a strategy of inference is called in a table: a size, a sampler setting, how many samples are drawn and who keeps one."""

from __future__ import annotations

GROUP = ["method", "flops_budget"]
"""Columns that a front belongs to."""
SETTING = ["sampler_steps", "guidance", "temperature", "sampler_options"]
STRATEGY = ["width", "depth", *SETTING, "keeper", "candidates"]
NO_CHOICE = "nobody"
"""The keeper of a strategy that draws one sample and keeps it."""
VERIFIER, CLIP = "verifier", "clip"
KEEPERS = (VERIFIER, CLIP)
"""Who may choose among several samples."""
NUMBERS = (1, 2, 4, 8, 16)
"""How many are drawn for an image that is kept."""


def affordable_numbers(flops_per_sample: float, most_flops: float, numbers: tuple[int, ...] = NUMBERS) -> list[int]:
    """Those of the numbers whose samples together cost no more than most_flops; one sample is always drawn."""
    return [number for number in numbers if number == 1 or number * flops_per_sample <= most_flops]
