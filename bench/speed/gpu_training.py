"""Training steps of every paradigm at the shapes of 256-pixel images, against what a GPU's makers publish of it.

Letters: V codes, C latent channels.
"""

from __future__ import annotations

import gc
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from bench.conditioning import ConditionSpace
from bench.config.experiment import Json, Recipe
from bench.config.run import Run
from bench.config.size import Size
from bench.flops.count import num_parameters
from bench.flops.meter import FlopMeter
from bench.model import build_meta
from bench.paradigm import FeatureSpace, TokenSpace
from bench.randomness import step_seed
from bench.registry import BUILT_INS, load
from bench.speed.timing import Spread, ratio, rounds, row
from bench.speed.training import bare_step, products

T = TypeVar("T")

PEAKS = (
    ("GB200", 2500e12),  # Grace Blackwell datasheet: 5 PFLOP/s with sparsity, per GPU
    ("B200", 2250e12),  # HGX B200 datasheet: 4.5 PFLOP/s with sparsity
    ("H200 NVL", 835e12),  # H200 datasheet: 1,671 with sparsity
    ("H200", 989e12),  # H200 datasheet: 1,979 with sparsity
    ("GH200", 989e12),  # GH200 datasheet: 1,979 with sparsity
    ("H100 NVL", 835e12),  # H100 NVL datasheet: 1,671 with sparsity
    ("H100 PCIe", 756e12),  # H100 datasheet: 1,513 with sparsity
    ("H100", 989e12),  # H100 datasheet, SXM: 1,979 with sparsity
    ("A100", 312e12),  # A100 datasheet
    ("L40S", 362e12),  # L40S datasheet: 733 with sparsity
    ("L4", 121e12),  # L4 datasheet: 242 with sparsity
)
"""Words of a device's name, and its dense products of bf16 in FLOP/s as published: half of what datasheets give with sparsity,
which Lightning's table has for some of these."""


def peak(device: str) -> float | None:
    """Published dense bf16 FLOP/s of a device by its name; None for an unknown one, or a part of one (MIG)."""
    words = set(re.split(r"[\s-]+", device))
    return None if "MIG" in words else next((rate for name, rate in PEAKS if words.issuperset(name.split())), None)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is that is measured."""

    sizes: tuple[Size, ...]
    """Of every paradigm."""
    size_of: Callable[[Size], Size] = field(default=lambda size: size)
    """What stands for a published size."""
    grid: int
    vocabulary: int
    scales: tuple[int, ...]
    """Sides of next-scale prediction's grids."""
    slots: int
    """Before MAR's tokens."""
    batch: int
    """Most images of a step."""
    steps: int
    """Of a round."""
    repeats: int
    """Rounds."""


FULL = Scale(
    sizes=(
        Size(width=768, depth=12, num_heads=12),
        Size(width=1024, depth=16, num_heads=16),
        Size(width=1280, depth=24, num_heads=20),
    ),
    grid=16,
    vocabulary=16_384,
    scales=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    slots=64,
    batch=256,
    steps=4,
    repeats=3,
)
"""0.13, 0.30 and 0.71 billion parameters in the shared blocks; 16x16 tokens of KL-16 (16 channels), of KL-8 grouped 2x2 (32x32 of
4 channels at patch 2), or of VQ-16; VAR's ten grids (Tian et al. 2024)."""
TINY_SIZE = Size(width=16, depth=2, num_heads=1)
TINY = Scale(
    sizes=(TINY_SIZE,),
    size_of=lambda size: TINY_SIZE,
    grid=2,
    vocabulary=32,
    scales=(1, 2),
    slots=2,
    batch=2,
    steps=1,
    repeats=2,
)
"""For a walk through everything on a CPU, whose numbers mean nothing."""
CHANNELS, PATCH_VALUES, SCALE_CHANNELS = 16, 16 * 16 * 3, 32
"""Values of a latent, of a patch of pixels, and of a code of next-scale prediction."""
FEATURES = 768
"""Channels of the frozen network's features (DINOv2-B), which come from the latent cache and cost nothing here."""
CONDITIONS = ConditionSpace(num_tokens=1, vocabulary=1000)
"""Classes of ImageNet."""
HEAD: dict[str, Json] = {"head_options": {"relative_width": 1.25, "depth": 8}}
"""MAR-L's (Li et al. 2024, appendix B)."""
OPTIONS: Mapping[str, dict[str, Json]] = {
    "mar": HEAD,
    "next-token-continuous": HEAD,
    "next-token-energy": {"head_options": {"relative_width": 1.0, "depth": 2}},
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to train, and what it should reach."""

    label: str
    paradigm: str
    size: Size
    share: str = ""
    """Goal for the share of the published peak."""
    images: str = ""
    """Goal for images/s where the published peak is an H200's."""


PUBLISHED = {
    "DiT": (
        Subject(
            label="DiT-B/2",
            paradigm="diffusion",
            size=Size(width=768, depth=12, num_heads=12),
            share=">= 0.35",
        ),
        Subject(
            label="DiT-XL/2",
            paradigm="diffusion",
            size=Size(width=1152, depth=28, num_heads=16),
            share=">= 0.45",
            images=">= 625",
        ),
    ),
    "MAR-L": (Subject(label="MAR-L", paradigm="mar", size=Size(width=1024, depth=32, num_heads=16), share=">= 0.35"),),
    "next-token-L": (
        Subject(label="next-token-L", paradigm="next-token", size=Size(width=1024, depth=24, num_heads=16), share=">= 0.35"),
    ),
}
"""Shapes of Peebles & Xie 2023 (table 1), Li et al. 2024 (appendix B) and LlamaGen (Sun et al. 2024, table 1) with our blocks."""


def subjects(scale: Scale) -> dict[str, tuple[Subject, ...]]:
    """Every group of models: those with goals first, then each paradigm at every size."""
    every = {
        name: tuple(Subject(label=name, paradigm=name, size=scale.size_of(size)) for size in scale.sizes) for name in BUILT_INS
    }
    return {
        name: tuple(replace(each, size=scale.size_of(each.size)) for each in group) for name, group in PUBLISHED.items()
    } | every


def space_of(paradigm: str, scale: Scale) -> TokenSpace:
    """What a paradigm reads of a 256-pixel image."""
    cls = load(paradigm)
    if cls.grids == "several":
        vectors = torch.randn(scale.vocabulary, SCALE_CHANNELS, generator=torch.Generator().manual_seed(0))
        sides, grid = scale.scales, scale.scales[-1]
        return TokenSpace(kind="codes", grid=grid, vocabulary=scale.vocabulary, scales=sides, code_vectors=vectors)
    if cls.reads == "codes":
        return TokenSpace(kind="codes", grid=scale.grid, vocabulary=scale.vocabulary)
    features = FeatureSpace(grid=scale.grid, channels=FEATURES, flops=0) if cls.reads_features else None
    channels = PATCH_VALUES if paradigm == "pixel-diffusion" else CHANNELS
    return TokenSpace(kind="latents", grid=scale.grid, channels=channels, features=features)


def run_of(subject: Subject, scale: Scale, batch: int) -> Run:
    """A run of bf16 steps of so many images."""
    options = dict(OPTIONS.get(subject.paradigm, {}))
    if subject.paradigm.startswith("mar"):
        options["num_buffer_slots"] = scale.slots
    return Run(
        method=subject.label,
        paradigm=subject.paradigm,
        paradigm_version=load(subject.paradigm).version,
        options=options,
        tokenizer="",
        tokenizer_hash="",
        data="",
        width=subject.size.width,
        depth=subject.size.depth,
        num_heads=subject.size.num_heads,
        seed=0,
        learning_rate=1e-4,
        recipe=Recipe(batch_size=batch),
        flop_rule="meta-v2",
        flops_budget=0,
    )


COUNTED_DEPTHS = (2, 4)


def training_flops(run: Run, space: TokenSpace, conditions: ConditionSpace, steps: int) -> float:
    """Training FLOPs per image over a run's first steps, by its rule. Blocks cost alike, so that a deep stack is counted at two
    depths and continued exactly, which takes seconds instead of a minute."""

    def counted(depth: int) -> float:
        shallow = replace(run, depth=depth)
        meter = FlopMeter(build_meta(shallow, space, conditions), conditions, run.flop_rule)
        seeds = [step_seed(run.seed, step, "loss") for step in range(steps)]
        return statistics.mean(count.dense for count in meter.expected(seeds, run.recipe.batch_size))

    low, high = COUNTED_DEPTHS
    if run.depth <= high or (run.depth - low) % (high - low):
        return counted(run.depth) / run.recipe.batch_size
    first, second = counted(low), counted(high)
    return (first + (second - first) * (run.depth - low) / (high - low)) / run.recipe.batch_size


def largest_batch(batch: int, measure: Callable[[int], T]) -> tuple[int, T]:
    """The first of batch, batch / 2, .. 1 images that fits the memory, and what was measured with it.

    Raises:
        ValueError: when one image does not fit.
    """
    while True:
        try:
            return batch, measure(batch)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise ValueError("not even a step of one image fits this device's memory") from None
        batch //= 2
        release()


def release() -> None:
    """Give back what the last model held, its compiled code included, of which torch keeps few versions."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_subject(subject: Subject, scale: Scale, device: str) -> Iterator[dict[str, Any]]:
    """Rows of a model's rate, images/s, share of the published peak, and of this device's own products."""
    space = space_of(subject.paradigm, scale)

    def measure(batch: int) -> tuple[float, dict[str, list[float]], float]:
        run = run_of(subject, scale, batch)
        per_image = training_flops(run, space, CONDITIONS, scale.steps)
        positions = batch * (space.num_tokens + CONDITIONS.num_tokens)
        once = 8.0 * positions * run.width**2
        product, flops = products(run.width, positions, torch.bfloat16, 8 * once)
        step = bare_step(run, space, CONDITIONS)
        calls = {"product": product, "steps": lambda: [step(number) for number in range(scale.steps)]}
        return per_image, rounds(calls, scale.repeats), flops

    release()
    batch, (per_image, taken, flops) = largest_batch(scale.batch, measure)
    images, known = batch * scale.steps, peak(device)
    parameters = num_parameters(build_meta(run_of(subject, scale, batch), space, CONDITIONS))
    place: dict[str, Any] = {
        "size": subject.size.name,
        "parameters": parameters,
        "tokens": space.num_tokens,
        "batch": batch,
        "dtype": "bf16",
        "flops_per_image": per_image,
    }
    rate = Spread.of([images * per_image / seconds for seconds in taken["steps"]])
    shares = None if known is None else Spread(rate.median / known, rate.low / known, rate.high / known)
    speed = Spread.of([images / seconds for seconds in taken["steps"]])
    goal = subject.images if known == peak("NVIDIA H200") else ""
    yield row("training", subject.label, "training rate", rate, "FLOP/s", **place)
    yield row("training", subject.label, "images", speed, "images/s", goal, **place)
    yield row("training", subject.label, "share of the published peak", shares, "1", subject.share, **place)
    own = ratio(taken["product"], taken["steps"], images * per_image / flops)
    yield row("training", subject.label, "share of matrix products' rate", own, "1", **place)


def measure_group(group: tuple[Subject, ...], scale: Scale, device: str) -> Iterator[dict[str, Any]]:
    """Rows of several models."""
    for subject in group:
        yield from measure_subject(subject, scale, device)
