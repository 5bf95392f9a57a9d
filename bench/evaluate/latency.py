"""Latency at batch 1 and throughput at the best batch, tokenizer decoding included.

Calls are timed one by one with the device synchronized; the first call, which may compile or allocate, is given apart. A
percentile is given only from enough calls: 11 for p50, 64 for p90 (order statistics at 99 % confidence), else None.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

MIN_CALLS = {50: 11, 90: 64}


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on the current device, warm."""

    latency_ms_b1_first: float
    latency_ms_b1_p50: float | None
    latency_ms_b1_p90: float | None
    images_per_s: float
    images_per_s_batch: int
    peak_memory_bytes: int


def percentile(seconds: list[float], q: int) -> float | None:
    """Percentile in milliseconds, or None from too few calls."""
    return float(np.percentile(seconds, q) * 1e3) if len(seconds) >= MIN_CALLS[q] else None


def measure_speed(generate: Callable[[int], object], calls: int, batches: tuple[int, ...]) -> Speed:
    """Time `generate(batch)` at batch 1 and once at each larger batch; memory is the process's (or the GPU's) peak."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()

    def timed(batch: int) -> float:
        start = time.perf_counter()
        generate(batch)
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    gc.collect()
    gc.disable()
    try:
        first = timed(1)
        single = [timed(1) for _ in range(calls)]
        rates = {batch: batch / timed(batch) for batch in batches}
    finally:
        gc.enable()
    best = max(rates, key=lambda batch: rates[batch])
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Speed(first * 1e3, percentile(single, 50), percentile(single, 90), rates[best], best, int(peak))
