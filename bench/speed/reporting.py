"""What a report and a latent cache cost."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data.latents import SHARD_BYTES, Encoded, TrainingData, fill_cache
from bench.report.page import write_report
from bench.results.columns import COLUMNS
from bench.results.folder import Results
from bench.results.table import load_table, save_frame
from bench.speed.memory import private_megabytes
from bench.speed.timing import row

REPORT_RUNS, REPORT_GOAL = 5000, "<= 120"
CACHE_BYTES, CACHE_CHUNK = 4 * 2**30, 256


def synthetic_table(num_runs: int) -> pd.DataFrame:
    """A table of about num_runs finished runs: four methods, 3 seeds, 8 sizes, as many budgets as needed. Laws plus noise."""
    generator = np.random.default_rng(0)
    sizes, seeds, methods = np.logspace(6, 8, 8), range(3), ("diffusion", "next-token", "masked-token", "mar")
    budgets = np.logspace(15, 21, round(num_runs / len(sizes) / len(seeds) / len(methods)))
    rows = []
    for (index, method), budget, size, seed in itertools.product(enumerate(methods), budgets, sizes, seeds):
        fall = (budget / 1e15) ** -(0.2 + 0.05 * index) * math.exp(0.02 * math.log(size / 1e7 / (budget / 1e18) ** 0.5) ** 2)
        fid, failure = ((0.5 + 20 * fall) * x for x in (1.0, 0.02)) if index else ((1 + 9 * fall) * x for x in (1.0, 0.03))
        noise = np.exp(0.02 * generator.standard_normal(2))
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        row |= {"run_id": f"{method}-{budget:.3e}-{size:.0f}-{seed}", "method": method, "paradigm": method, "seed": seed}
        row |= {"width": round(size**0.5), "depth": 4, "num_params": round(size), "flops_budget": budget, "flops_spent": budget}
        row |= {"images_seen": budget / size / 6e3, "split": "test", "tuned_for": "prompt_accuracy fid", "ema": True}
        row |= {"status": "done", "protocol": "synthetic", "num_samples": 5000, "tokenizer": "none@0", "guidance": 1.5}
        row |= {"fid": fid * noise[0], "fid_se": 0.02 * fid, "kid": fid * noise[0] / 100, "kid_se": fid / 5000}
        row |= {"prompt_accuracy": 1 - failure * noise[1], "prompt_accuracy_se": 0.005, "flops_per_sample": 1e9 * (index + 1)}
        row |= {"latency_ms_b1_p50": 10.0 * (index + 1) * noise[0], "images_per_s": 100.0 / noise[1]}
        rows.append(row)
    frame = pd.DataFrame(rows)
    numbers = [name for name in COLUMNS if frame[name].isna().all()]
    return frame.astype(dict.fromkeys(numbers, float))


def measure_report() -> Iterator[dict[str, Any]]:
    """One row: seconds of loading a table of REPORT_RUNS runs, all fits with 1,000 bootstrap draws, and drawing the report."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder))
        save_frame(synthetic_table(REPORT_RUNS), results.table)
        began = time.perf_counter()
        write_report(results)
        spent = time.perf_counter() - began
        yield row("set-up", "report", f"load, fit and draw {len(load_table(folder))} runs", spent, "s", REPORT_GOAL)


def measure_cache(total_bytes: int = CACHE_BYTES) -> Iterator[dict[str, Any]]:
    """Private memory while a latent cache is filled and then read at random, and the rates; the cache is that of ImageNet's KL-16
    tokens with both views, cut to total_bytes."""
    views, tokens, channels, batch = 2, 256, 32, 256
    row_bytes = views * tokens * channels * 2
    noise = np.random.default_rng(0).standard_normal((CACHE_CHUNK, views, tokens, channels)).astype(np.float16)
    rows: list[dict[str, Any]] = []
    at_first = private_megabytes()
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()

        def note(stage: str, images: int) -> None:
            seconds = time.perf_counter() - began
            place: dict[str, Any] = {"size": f"{images * row_bytes / 1e9:.2f} GB", "batch": batch}
            rows.append(
                row(
                    "latent cache",
                    stage,
                    "private memory beyond that at the start",
                    round(private_megabytes() - at_first),
                    "MB",
                    **place,
                )
            )
            rows.append(row("latent cache", stage, "images", round(images / seconds), "images/s", **place))

        def encode(indices: range) -> Encoded:
            if indices.start % (SHARD_BYTES // row_bytes) == 0 and indices.start:
                note("filling", indices.start)
            return Encoded(noise[: len(indices)], np.zeros((len(indices), 1), np.int32))

        num = total_bytes // row_bytes
        fill_cache(folder, num, row_bytes, encode, lambda _: None, chunk=CACHE_CHUNK)
        note("filling", num)
        data, steps, began = TrainingData(folder), num // batch, time.perf_counter()
        for step in range(steps):
            data.batch(0, step, batch)
            if (step + 1) % max(1, steps // 8) == 0:
                note("reading at random", (step + 1) * batch)
    yield from rows
