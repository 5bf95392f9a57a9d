"""On a GPU: decoding and the diffusion head with and without CUDA graphs, several small runs at once, and scoring images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.config.size import Size
from bench.data.open import open_data
from bench.data.shapes_data import TokenizedShapes
from bench.model import build_paradigm, device_type
from bench.paradigm import Paradigm
from bench.plan.company import steps_together
from bench.speed.gpu_training import CONDITIONS, PUBLISHED, Scale, Subject, release, run_of, space_of
from bench.speed.setup import score_seconds
from bench.speed.timing import Spread, ratio, rounds, row
from bench.speed.timing import seconds as seconds_of
from bench.speed.training import bare_step
from bench.train.lightning_module import LOG_EVERY_STEPS

SWITCH = "PARADIGM_BENCH_GRAPHS"
REPEATS = 3
(DECODED,), (MASKED,) = PUBLISHED["next-token-L"], PUBLISHED["MAR-L"]
STEPS, HEAD_ROWS = 16, 4
"""Of MAR's sampler for one image, and tokens that it reveals at once on average at 64 steps."""
SMALL = Subject(label="diffusion", paradigm="diffusion", size=Size(width=256, depth=6, num_heads=4))
"""As wide as runs are that a sweep lets share a GPU (bench/plan/machine.py)."""
SMALL_BATCH = 64
SECONDS = 5.0
"""That several runs train at once for each number of them."""


def built(subject: Subject, scale: Scale) -> Paradigm:
    """A model as a sampler has it."""
    with torch.device(device_type()):
        return build_paradigm(run_of(subject, scale, 1), space_of(subject.paradigm, scale), CONDITIONS).eval()


def compared(subject: Subject, what: str, call: Callable[[], object], **place: Any) -> Iterator[dict[str, Any]]:
    """Rows of a call's milliseconds without and with CUDA graphs, and of their ratio; the last two are empty without a GPU."""

    def switched(state: str) -> Callable[[], object]:
        def run() -> None:
            before = os.environ.get(SWITCH)
            os.environ[SWITCH] = state
            try:
                call()
            finally:
                os.environ.pop(SWITCH)
                if before is not None:
                    os.environ[SWITCH] = before

        return run

    calls = {"plain": switched("0"), **({"graphs": switched("1")} if torch.cuda.is_available() else {})}
    taken = rounds(calls, REPEATS)
    milliseconds = {name: Spread.of([1e3 * each for each in found]) for name, found in taken.items()}
    gain = ratio(taken["plain"], taken["graphs"]) if "graphs" in taken else None
    yield row("sampling", subject.label, what, milliseconds["plain"], "ms", **place)
    yield row("sampling", subject.label, f"{what} with CUDA graphs", milliseconds.get("graphs"), "ms", **place)
    yield row("sampling", subject.label, f"{what} over that with CUDA graphs", gain, "1", **place)


def measure_decoding(scale: Scale) -> Iterator[dict[str, Any]]:
    """Latency of one image, token by token with a key-value cache."""
    release()
    subject = replace(DECODED, size=scale.size_of(DECODED.size))
    yield from compared(subject, "latency", image_of(built(subject, scale), None), size=subject.size.name, batch=1, dtype="fp32")


def image_of(paradigm: Paradigm, steps: int | None) -> Callable[[], Tensor]:
    """A call that draws one image's tokens (1, N) or (1, N, C), always the same."""
    with torch.device(device_type()):
        condition = Condition.of(CONDITIONS.example(1))
    generator = torch.Generator(device_type())

    @torch.inference_mode()
    def draw() -> Tensor:
        generator.manual_seed(0)
        return paradigm.sample(condition, steps=steps, guidance=1.0, temperature=1.0, generator=generator)

    return draw


def measure_head(scale: Scale) -> Iterator[dict[str, Any]]:
    """A few tokens from MAR's diffusion head, and a whole image."""
    release()
    subject = replace(MASKED, size=scale.size_of(MASKED.size))
    paradigm: Any = built(subject, scale)
    rows = torch.randn(HEAD_ROWS, subject.size.width, device=device_type())
    generator = torch.Generator(device_type())

    @torch.inference_mode()
    def draw() -> None:
        paradigm.head.sample(rows, temperature=1.0, guidance=1.0, generator=generator)

    place: dict[str, Any] = {"size": subject.size.name, "batch": 1, "dtype": "fp32"}
    yield from compared(subject, f"{HEAD_ROWS} tokens from the diffusion head", draw, **place)
    steps = min(STEPS, paradigm.space.num_tokens)
    yield from compared(subject, f"latency at {steps} steps", image_of(paradigm, steps), **place)


SCRIPT = """
from bench.speed.gpu_sampling import answer_seconds
from bench.speed.gpu_training import {scale}
answer_seconds({scale})
"""


def answer_seconds(scale: Scale) -> None:
    """A child's work: train the small run for as long as each line of input asks, and say how many steps were done."""
    torch.set_num_threads(1)
    run = run_of(replace(SMALL, size=scale.size_of(SMALL.size)), scale, min(SMALL_BATCH, scale.batch))
    step = bare_step(run, space_of(SMALL.paradigm, scale), CONDITIONS)

    def some(count: int) -> float:
        return seconds_of(lambda: [step(number) for number in range(count)])

    some(3)  # compiles
    print("ready", flush=True)
    for line in sys.stdin:
        asked, spent, count = float(line), 0.0, 0
        while spent < asked:
            spent, count = spent + some(LOG_EVERY_STEPS), count + LOG_EVERY_STEPS
        print(count * asked / spent, flush=True)


def measure_company(scale: Scale, name: str, numbers: tuple[int, ...], seconds: float) -> Iterator[dict[str, Any]]:
    """Images/s of so many small runs together on one device.

    Args:
        name: of the scale in `bench.speed.gpu_training`, which children read there.
    """
    release()
    batch, size = min(SMALL_BATCH, scale.batch), scale.size_of(SMALL.size)
    place: dict[str, Any] = {"size": size.name, "batch": batch, "dtype": "bf16"}
    done = steps_together(SCRIPT.format(scale=name), numbers, seconds)
    for number, counts in zip(numbers, done, strict=True):
        yield row("several runs", SMALL.label, "images", sum(counts) * batch / seconds, "images/s", at=number, **place)


def measure_scoring(num: int) -> Iterator[dict[str, Any]]:
    """Images/s that are scored: features, FID, KID, precision and recall, CLIP and the verifier, sampling apart."""
    dataset = open_data("shapes32")
    assert isinstance(dataset, TokenizedShapes)
    yield row("evaluation", "shapes32", "images scored", num / score_seconds(dataset, num), "images/s", at=num)
