"""How time and memory grow with tokens, width, images and runs; the exponent between neighbours, and a figure each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from bench.backbone import Backbone, BackboneConfig
from bench.config.experiment import Experiment
from bench.data.shapes_data import TokenizedShapes
from bench.evaluate import fidelity
from bench.evaluate.world_judge import clip_features, load_clip
from bench.model import device_type
from bench.speed.large import measure_large
from bench.speed.timing import Spread, rounds, row

TOKENS = (64, 256, 1024, 4096)
WIDTHS = (64, 128, 256, 512)
IMAGES = (500, 1000, 2000, 4000)
DEPTH, HEAD_WIDTH, WIDTH, LENGTH, BATCH = 2, 64, 128, 64, 8
REPEATS = 3
QUANTITIES = {"time": "seconds", "memory": "bytes held by tensors", "private memory": "private memory, MB"}
"""What is measured of a series, and how a figure's axis calls it."""


def training_pass(width: int, length: int, batch: int) -> Callable[[], None]:
    """Forward and backward of a backbone in bf16."""
    with torch.device(device_type()):
        backbone = Backbone(BackboneConfig(width=width, depth=DEPTH, num_heads=max(1, width // HEAD_WIDTH)))
        x, vector = torch.randn(batch, length, width), torch.randn(batch, width)

    def call() -> None:
        with torch.autocast(device_type(), torch.bfloat16):
            out = backbone(x, vector)
        out.float().square().mean().backward()

    return call


def peak_bytes(call: Callable[[], object]) -> int:
    """Most memory that tensors of a call hold at once beyond those before it."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = most = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda each: each.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def series(
    name: str, values: tuple[int, ...], make: Callable[[int], Callable[[], object]], **place: Any
) -> Iterator[dict[str, Any]]:
    """Rows of seconds at each value, and of the memory that tensors hold."""
    for value in values:
        call = make(value)
        yield row("growth", name, "time", Spread.of(rounds({"call": call}, REPEATS)["call"]), "s", at=value, **place)
        yield row("growth", name, "memory", peak_bytes(call), "bytes", at=value, **place)


def measure_growth(experiment: Experiment, dataset: TokenizedShapes) -> Iterator[dict[str, Any]]:
    """Rows of every series."""
    place: dict[str, Any] = {"batch": BATCH, "dtype": "bf16"}
    yield from series("tokens", TOKENS, lambda length: training_pass(WIDTH, length, BATCH), size=f"{WIDTH}x{DEPTH}", **place)
    yield from series("width", WIDTHS, lambda width: training_pass(width, LENGTH, BATCH), tokens=LENGTH, **place)
    images = torch.randint(256, (max(IMAGES), 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = clip_features(dataset, load_clip(dataset))
    reference = fidelity.Reference("noise", network.features(images))

    def scored(num: int) -> Callable[[], object]:
        return lambda: fidelity.measure(network.features(images[:num]), reference)

    yield from series("images", IMAGES, scored, size="fidelity against 4,000")
    yield from measure_large(experiment, dataset)


def draw(frame: pd.DataFrame, folder: Path) -> None:
    """A figure per series: seconds, and memory where measured, over the amount of work, with lines of slope 1 and 2."""
    growth = frame[frame["part"] == "growth"]
    for subject, part in growth.groupby("subject", sort=False):
        kinds = [kind for kind in QUANTITIES if (part["quantity"] == kind).any()]
        figure, axes = plt.subplots(1, len(kinds), figsize=(4.5 * len(kinds), 3.6), layout="constrained", squeeze=False)
        for axis, kind in zip(axes[0], kinds, strict=True):
            rows = part[part["quantity"] == kind]
            x, y = rows["at"].to_numpy(float), rows["value"].to_numpy(float)
            axis.loglog(x, y, "o-", color="C0", label="measured")
            for slope, style in ((1, "--"), (2, ":")):
                axis.loglog(x, y[0] * (x / x[0]) ** slope, style, color="0.6", label=f"slope {slope}")
            axis.set(xlabel=str(subject), ylabel=QUANTITIES[kind])
            last = np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2])
            axis.set_title(f"{kind}: last slope {last:.2f}", fontsize=10)
            axis.legend(fontsize=8)
        about = rows.iloc[0].dropna()
        names = [name for name in ("size", "tokens", "batch", "dtype", "device", "num_threads") if name in about]
        figure.suptitle(
            ", ".join(f"{name} {about[name]:{'g' if isinstance(about[name], float) else ''}}" for name in names), fontsize=8
        )
        figure.savefig(folder / f"growth-{str(subject).replace(' ', '-')}.png", dpi=120, metadata={"Software": None})
        plt.close(figure)
