"""From a run's configuration to its paradigm, on a real device or on meta. Light to import: planning needs no trainer."""

from __future__ import annotations

import torch

from bench.backbone import BackboneConfig
from bench.conditioning import ConditionSpace
from bench.config import Run
from bench.paradigm import Paradigm, TokenSpace
from bench.registry import load


def build_paradigm(run: Run, space: TokenSpace, conditions: ConditionSpace) -> Paradigm:
    """Build the run's paradigm on the current default device, seeded by the run.

    Raises:
        ValueError: for a wrong tokenizer or options that the class does not take.
    """
    torch.manual_seed(run.seed)
    backbone = BackboneConfig(width=run.width, depth=run.depth, num_heads=run.num_heads)
    try:
        return load(run.paradigm)(backbone, space, conditions, **run.options)
    except TypeError as error:
        raise ValueError(f"paradigm {run.paradigm!r} refuses its options {dict(run.options)}: {error}") from error


def build_meta(run: Run, space: TokenSpace, conditions: ConditionSpace) -> Paradigm:
    """The same without memory, for counting."""
    with torch.device("meta"):
        return build_paradigm(run, space, conditions)
