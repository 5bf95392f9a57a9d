"""A run's network: built, on the meta device, made fast where it lies; its weights written and read."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import ConditionSpace
from bench.config.experiment import Size
from bench.config.run import Run
from bench.files import read_weights, write_file
from bench.paradigm import Paradigm, TokenSpace
from bench.parametrization import build_scaled
from bench.registry import load


def build_paradigm(run: Run, space: TokenSpace, conditions: ConditionSpace) -> Paradigm:
    """Build the run's paradigm on the current default device, seeded by the run.

    Raises:
        ValueError: for a wrong tokenizer or options that the class does not take.
    """
    cls, base = load(run.paradigm), run.recipe.completep_base
    torch.manual_seed(run.seed)
    try:
        make = lambda backbone: cls(backbone, space, conditions, **run.options)  # noqa: E731
        if base is None:
            return make(backbone_config(run.size))
        paradigm, scalings = build_scaled(make, backbone_config(run.size), backbone_config(base), cls.roles)
    except TypeError as error:
        raise ValueError(f"paradigm {run.paradigm!r} refuses its options {dict(run.options)}: {error}") from error
    paradigm.scalings = scalings
    return paradigm


def backbone_config(size: Size) -> BackboneConfig:
    """The backbone of a size."""
    return BackboneConfig(width=size.width, depth=size.depth, num_heads=size.num_heads)


def device_type() -> str:
    """Where models run here."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def compile_on_gpu(paradigm: Paradigm) -> Paradigm:
    """Make a paradigm fast where it lies: on a GPU compiled blocks, and TF32 for what stays in float32.

    PARADIGM_BENCH_COMPILE=0 or 1 overrides; on a CPU blocks gain nothing, whole losses do (bench/train/billed_loss.py).
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


def save_weights(paradigm: Paradigm, averages: list[Tensor], path: Path) -> None:
    """Raw parameters (...) and their averages (...), in the same order, in one safetensors file."""
    names = [name for name, _ in paradigm.named_parameters()]
    content = {f"raw.{n}": p.detach().contiguous() for n, p in paradigm.named_parameters()}
    content |= {f"ema.{n}": a.contiguous() for n, a in zip(names, averages, strict=True)}
    write_file(path, lambda temporary: save_file(content, temporary))


def load_weights(paradigm: Paradigm, path: Path, ema: bool) -> Paradigm:
    """Put a finished run's weights into a freshly built paradigm; returns it in eval mode.

    Raises:
        ValueError: when the file is damaged, or holds another model's weights.
    """
    prefix = "ema." if ema else "raw."
    weights = read_weights(path)
    for name, parameter in paradigm.named_parameters():
        found = weights.get(prefix + name)
        if found is None or found.shape != parameter.shape:
            shape = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(f"{path} has {shape} for {prefix}{name}, not {tuple(parameter.shape)}; train the run again")
        parameter.data.copy_(found)
    return paradigm.eval().requires_grad_(False)
