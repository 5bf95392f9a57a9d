"""From a run's configuration to its paradigm, on a real device or on meta. Light to import: planning needs no trainer."""

from __future__ import annotations

import os

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


def device_type() -> str:
    """Where models run here."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def accelerate(paradigm: Paradigm) -> Paradigm:
    """Make a paradigm fast where it lies: on a GPU compiled blocks, and TF32 for what stays in float32.

    PARADIGM_BENCH_COMPILE=0 or 1 overrides; on a CPU compilation gains nothing (docs/log.md).
    """
    on_gpu = device_type() == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    if os.environ.get("PARADIGM_BENCH_COMPILE", "1" if on_gpu else "0") == "1":
        paradigm.backbone.compile_blocks()
    return paradigm


def build_meta(run: Run, space: TokenSpace, conditions: ConditionSpace) -> Paradigm:
    """The same without memory, for counting."""
    with torch.device("meta"):
        return build_paradigm(run, space, conditions)
