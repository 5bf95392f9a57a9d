"""`make bench`: training, sampling and reporting speed of this machine, rates as shares of its own matrix products.

Rates are measured in one run, interleaved, as medians of repeats; seconds on shared machines mean little by themselves.
"""

from __future__ import annotations

import itertools
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.__main__ import DEFAULT_EXPERIMENT, load_experiment
from bench.build import build_meta, build_paradigm
from bench.conditioning import Condition
from bench.config import Experiment
from bench.data.cache import SHARD_BYTES, Encoded, TrainingData, fill_cache
from bench.flops import count_sampling
from bench.instrument import open_instrument
from bench.machine import this_machine
from bench.plan import make_plan
from bench.report import write_report
from bench.results import COLUMNS, Results, load_table, save_frame

REPEATS = 7
SAMPLE_BATCH = 64
REPORT_RUNS = 5000
CACHE_BYTES, CACHE_CHUNK = 4 * 2**30, 256


def median_seconds(call: Callable[[], object]) -> float:
    """Median of REPEATS calls after one warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def matmul_rate(width: int, rows: int, device: str) -> float:
    """FLOP/s of the MLP's first product at a width, fp32: what the backbone could reach if it did nothing else."""
    left, right = torch.randn(rows, width, device=device), torch.randn(width, 4 * width, device=device)
    return 2 * rows * width * 4 * width / median_seconds(lambda: left @ right)


def measure(experiment: Experiment) -> pd.DataFrame:
    """One row per method and size."""
    instrument, machine = open_instrument(experiment.data), this_machine()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(machine.num_threads)
    plan = make_plan(experiment, round(experiment.budget), instrument)
    firsts = {(p.run.method, p.run.size.name): p for p in plan.runs}
    rows = []
    for planned in firsts.values():
        run, space, conditions = planned.run, instrument.space(planned.run.tokenizer), instrument.conditions
        batch = run.recipe.batch_size
        with torch.device(device):
            paradigm = build_paradigm(run, space, conditions)
            words = conditions.example(SAMPLE_BATCH)
            tokens = space.example(batch)
        generator = torch.Generator(device).manual_seed(0)

        def step() -> None:
            paradigm.loss(tokens, Condition.of(words[:batch]))[0].mean().backward()  # noqa: B023

        @torch.inference_mode()
        def sample(num: int) -> None:
            paradigm.sample(  # noqa: B023
                Condition.of(words[:num]),  # noqa: B023
                steps=planned.method.settings[0].steps,  # noqa: B023
                guidance=2.0,
                temperature=1.0,
                generator=generator,  # noqa: B023
            )

        training = batch * planned.flops_per_image / median_seconds(step)
        peak = matmul_rate(run.width, batch * (space.num_tokens + conditions.num_tokens), device)
        steps = planned.method.settings[0].steps
        cost = count_sampling(build_meta(run, space, conditions), conditions.num_tokens, steps=steps, guidance=2.0).total
        many = median_seconds(lambda: sample(SAMPLE_BATCH))
        rows.append(
            {
                "method": run.method,
                "size": run.size.name,
                "train_flops_per_s": round(training),
                "share_of_matmul_rate": round(training / peak, 3),
                "train_images_per_s": round(training / planned.flops_per_image, 1),
                "latency_ms_b1_p50": round(median_seconds(lambda: sample(1)) * 1e3, 2),
                "sample_images_per_s": round(SAMPLE_BATCH / many, 1),
                "sample_share_of_matmul_rate": round(SAMPLE_BATCH / many * cost / peak, 3),
                "device": machine.device,
                "num_threads": machine.num_threads,
                "dtype": "fp32",
            }
        )
    return pd.DataFrame(rows)


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


def measure_report(num_runs: int) -> dict[str, object]:
    """Wall seconds of loading a table of num_runs, all fits with 1,000 bootstrap draws, and drawing the report."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder))
        save_frame(synthetic_table(num_runs), results.table)
        began = time.perf_counter()
        write_report(results)
        return {"report of runs": len(load_table(folder)), "seconds": round(time.perf_counter() - began, 1)}


def private_megabytes() -> float:
    """Memory of this process that the system cannot take back: pages of mapped files are not in it (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def measure_cache(total_bytes: int) -> pd.DataFrame:
    """Private memory while a latent cache is filled and then read at random, and the rates; the cache is that of ImageNet's KL-16
    tokens with both views, cut to total_bytes."""
    views, tokens, channels, batch = 2, 256, 32, 256
    row_bytes = views * tokens * channels * 2
    noise = np.random.default_rng(0).standard_normal((CACHE_CHUNK, views, tokens, channels)).astype(np.float16)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()

        def note(stage: str, images: int) -> None:
            seconds = time.perf_counter() - began
            place = {"stage": stage, "images": images, "gigabytes": round(images * row_bytes / 1e9, 2)}
            rows.append({**place, "private_megabytes": round(private_megabytes()), "images_per_s": round(images / seconds)})

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
    return pd.DataFrame(rows)


def main() -> None:
    """Print the tables and write the first to results/bench/."""
    frame = measure(load_experiment(DEFAULT_EXPERIMENT))
    print(frame.to_string(index=False))
    path = Path("results/bench") / f"{platform.machine()}-{this_machine().device.replace(' ', '-').lower()}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_frame(frame, path)
    print(pd.DataFrame([measure_report(REPORT_RUNS)]).to_string(index=False))
    cache = measure_cache(CACHE_BYTES)
    print(cache.to_string(index=False))
    save_frame(cache, path.with_name(f"{path.stem}-latent-cache.csv"))
    print(f"written to {path}; medians of {REPEATS} calls, guidance 2, sampling batch {SAMPLE_BATCH}")


if __name__ == "__main__":
    main()
