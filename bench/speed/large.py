"""What large studies cost: tens of thousands of runs planned, analysed and reported, a million cached images, and tens of
thousands of evaluation images; seconds, and private memory at its peak.

Letters: n images, B images of a batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.analysis import claims
from bench.analysis.comparison import analyse
from bench.analysis.metrics import FITTED
from bench.config.experiment import Experiment
from bench.data.latents import Encoded, TrainingData, fill_cache
from bench.data.shapes_data import TokenizedShapes
from bench.evaluate import fidelity
from bench.evaluate.image_stream import CHUNK_IMAGES, ImageStream, look_at
from bench.plan.plan import make_plan
from bench.report import tables
from bench.report.page import write_report
from bench.results.folder import Results
from bench.results.table import build_table, load_table, save_frame
from bench.speed.memory import spent
from bench.speed.reporting import synthetic_table
from bench.speed.setup import with_runs
from bench.speed.timing import row

RUNS = (100, 400, 1600, 5000, 20_000)
CACHED_IMAGES = (10_000, 100_000, 1_000_000)
EVALUATION_IMAGES = (2000, 10_000, 50_000)
PIXELS, POOLED = 256, 32
"""Side of the evaluation images, 10 GB of which are 50,000; and pixels whose mean is a feature, 192 of an image."""
REFERENCE_IMAGES = 4000
STEP_IMAGES = 256


def once(
    subject: str,
    values: Sequence[int],
    make: Callable[[int], Callable[[], object]],
    goals: tuple[str, str],
    **place: Any,
) -> Iterator[dict[str, Any]]:
    """Rows of one call at each value, after one at the least that warms up.

    Args:
        goals: of the largest value, in seconds and in megabytes of private memory beyond that before the call.
    """
    make(values[0])()
    for value in values:
        found, (slow, large) = spent(make(value)), goals if value == values[-1] else ("", "")
        yield row("growth", subject, "time", found.seconds, "s", slow, at=value, **place)
        yield row("growth", subject, "private memory", max(1, round(found.megabytes)), "MB", large, at=value, **place)


def planned(experiment: Experiment, dataset: TokenizedShapes, num: int) -> Callable[[], None]:
    """Counts num runs and writes their empty table."""

    def call() -> None:
        plan = make_plan(with_runs(experiment, num), round(experiment.budget), dataset)
        with tempfile.TemporaryDirectory() as name:
            results = Results(Path(name))
            save_frame(build_table(results, plan.rows), results.table)

    return call


def analysed(num: int) -> Callable[[], None]:
    """Reads a table of num runs; all fits, surfaces, best sizes and their paths, claims and standings. Draws nothing."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as name:
            save_frame(synthetic_table(num), Results(Path(name)).table)
            analysis = analyse(load_table(name))
        for metric in FITTED:
            if len(analysis.rows(metric)):
                analysis.fits(metric)
                analysis.surfaces(metric)
                analysis.minima(metric)
                analysis.paths(metric)
        claims.judge(analysis)
        tables.standing_tables(analysis)

    return call


def reported(num: int) -> Callable[[], None]:
    """Reads a table of num runs, and writes figures and page."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as name:
            save_frame(synthetic_table(num), Results(Path(name)).table)
            write_report(Results(Path(name)))

    return call


def cached(dataset: TokenizedShapes, tokenizer: str, num: int) -> Callable[[], None]:
    """Fills a latent cache with num images of a tokenizer's shapes, encoded as noise, and reads as many at random."""
    space, conditions = dataset.space(tokenizer), dataset.conditions
    generator = np.random.default_rng(0)
    shape = (dataset.chunk, dataset.views, space.num_tokens, 2 * space.channels)
    tokens = generator.standard_normal(shape).astype(dataset.cached_type(tokenizer))
    condition = generator.integers(conditions.vocabulary, size=(dataset.chunk, conditions.num_tokens)).astype(np.int32)

    def encode(indices: range) -> Encoded:
        return Encoded(tokens[: len(indices)], condition[: len(indices)])

    def call() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill_cache(folder, num, dataset.row_bytes(tokenizer), encode, lambda _: None, chunk=dataset.chunk)
            data = TrainingData(folder)
            for step in range(num // STEP_IMAGES):
                data.batch(0, step, STEP_IMAGES)

    return call


def noise(num: int) -> Iterator[Tensor]:
    """Images (B, 3, H, H) uint8 of PIXELS, n in all, a chunk of noise changed by a number of each chunk."""
    first = torch.randint(256, (CHUNK_IMAGES, 3, PIXELS, PIXELS), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, start in enumerate(range(0, num, CHUNK_IMAGES)):
        yield first[: num - start] + torch.tensor(number % 256, dtype=torch.uint8)


def evaluated(num: int) -> Callable[[], None]:
    """Looks at num images of noise by way of the means of their parts, and measures their fidelity."""

    def pooled(images: Tensor) -> tuple[Tensor]:
        return (torch.nn.functional.avg_pool2d(images.float(), POOLED).flatten(1),)

    network = fidelity.FeatureNetwork("pooled", 3 * (PIXELS // POOLED) ** 2, pooled, batch=64)
    generator = np.random.default_rng(0)
    reference = fidelity.Reference("noise", 127.5 + generator.standard_normal((REFERENCE_IMAGES, network.dim)))

    def call() -> None:
        seen = look_at(ImageStream(num, noise(num)), [network.look])
        fidelity.measure(seen["features"], reference)

    return call


def measure_large(experiment: Experiment, dataset: TokenizedShapes) -> Iterator[dict[str, Any]]:
    """Rows of every series; each goal is for its largest value."""
    tokenizer = next(name for name in experiment.tokenizers if dataset.space(name).kind == "latents")
    size = f"{dataset.row_bytes(tokenizer)} bytes an image"
    yield from once("cached images", CACHED_IMAGES, lambda num: cached(dataset, tokenizer, num), ("<= 120", "<= 1000"), size=size)
    size = f"{PIXELS} pixels, fidelity against {REFERENCE_IMAGES:,}"
    yield from once("evaluation images", EVALUATION_IMAGES, evaluated, ("<= 600", "<= 2000"), size=size)
    goals = ("<= 60", "<= 1000")
    yield from once("runs planned", RUNS, lambda num: planned(experiment, dataset, num), goals)
    yield from once("runs analysed", RUNS, analysed, ("<= 300", "<= 2000"))
    yield from once("runs reported", RUNS, reported, ("<= 600", "<= 4000"))
