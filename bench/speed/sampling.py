"""Sampling: latency, throughput and the ratio to the same model without its fast path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, ConditionSpace, Guidance
from bench.config.experiment import Experiment
from bench.data.base import TokenizedData
from bench.flops.sampling import count_sampling
from bench.key_value_cache import KeyValueCache
from bench.model import build_meta, build_paradigm, compile_on_gpu, device_type
from bench.paradigm import Paradigm, TokenSpace
from bench.plan.cells import first_run
from bench.registry import load
from bench.speed.timing import Spread, ratio, rounds, row
from bench.speed.training import products

BATCH, GUIDANCE = 64, 2.0
CACHE_TOKENS, CACHE_WIDTH, CACHE_DEPTH, CACHE_HEADS, CACHE_BATCH = 256, 256, 6, 4, 4
"""The published length of image sequences at 256 pixels."""
DECODING = BackboneConfig(width=384, depth=8, num_heads=6)
VECTOR_ROWS = 1024
"""Of the matrices whose products with a vector stand for reading all weights once."""


def measure_sampling(experiment: Experiment, dataset: TokenizedData) -> Iterator[dict[str, Any]]:
    """Rows of latency at batch 1, throughput, and the share of the matrix products' rate, per method at the largest size."""
    for method in experiment.methods:
        run, conditions = first_run(experiment, method, experiment.sizes[-1], 10**12, dataset), dataset.conditions
        run, space, setting = replace(run, seed=0), dataset.space(method.tokenizer), method.settings[0]
        with torch.device(device_type()):
            paradigm = compile_on_gpu(build_paradigm(run, space, conditions)).eval()
            words = conditions.example(BATCH)
        generator = torch.Generator(device_type()).manual_seed(0)

        @torch.inference_mode()
        def sample(num: int) -> Tensor:
            part, steps = Condition.of(words[:num]), setting.steps  # noqa: B023
            return paradigm.sample(part, steps=steps, guidance=GUIDANCE, temperature=1.0, generator=generator)  # noqa: B023

        rows = BATCH * 2 * (space.num_tokens + conditions.num_tokens)
        product, flops = products(run.width, rows, torch.float32)
        taken = rounds({"product": product, "one": lambda: sample(1), "many": lambda: sample(BATCH)})
        meta = build_meta(run, space, conditions)
        cost = count_sampling(meta, conditions, steps=setting.steps, guidance=GUIDANCE).total
        place: dict[str, Any] = {"size": run.size.name, "dtype": "fp32"}
        yield row("sampling", method.name, "latency", Spread.of([s * 1e3 for s in taken["one"]]), "ms", batch=1, **place)
        yield row(
            "sampling", method.name, "images", Spread.of([BATCH / s for s in taken["many"]]), "images/s", batch=BATCH, **place
        )
        share = ratio(taken["product"], taken["many"], BATCH * cost / flops)
        yield row("sampling", method.name, "share of matrix products' rate", share, "1", batch=BATCH, **place)
        if method.paradigm == "diffusion":
            steps = setting.steps or paradigm.default_steps or 1
            yield row(
                "sampling",
                method.name,
                "sampler over its forward passes",
                overhead(paradigm, words, sample, steps),
                "1",
                "<= 1.1",
                batch=BATCH,
                **place,
            )


def overhead(paradigm: Any, words: Tensor, sample: Callable[[int], Tensor], steps: int) -> Spread:
    """Seconds of sampling images of condition tokens (B, M) over those of its forward passes alone, both branches of guidance."""
    condition = Guidance(Condition.of(words), GUIDANCE).condition
    with torch.device(device_type()):
        x, time = paradigm.space.example(len(condition)), torch.full((len(condition),), 0.5)

    @torch.inference_mode()
    def forward() -> None:
        for _ in range(steps):
            paradigm.predict(x, time, condition)

    taken = rounds({"sample": lambda: sample(len(words)), "forward": forward})
    return ratio(taken["sample"], taken["forward"])


@torch.inference_mode()
def sample_without_cache(paradigm: Any, condition: Condition, guidance: float, generator: torch.Generator) -> Tensor:
    """The slow twin of next-token's sampler, codes (B, N): every step runs the whole sequence so far."""
    guide = Guidance(condition, guidance)
    orders = paradigm.draw_orders(len(condition), generator)
    tokens = paradigm.space.empty(len(condition), paradigm.device)
    for index in range(paradigm.space.num_tokens):
        known = orders[:, : index + 1]
        out = paradigm.contexts(guide.double(tokens), guide.double(known), guide.condition)[:, -1]
        drawn = paradigm.head.sample(out, temperature=1.0, guidance=guidance, generator=generator)[:, None]
        tokens = tokens.scatter(1, known[:, -1:], drawn)
    return tokens


def token_sampler(config: BackboneConfig, batch: int) -> tuple[Paradigm, Condition, torch.Generator, Callable[[], Tensor]]:
    """Next-token on 256 codes of 1,024 with a class as condition: network, condition, generator, and a call that samples codes
    (batch, 256) without guidance."""
    space = TokenSpace(kind="codes", grid=16, vocabulary=1024)
    conditions = ConditionSpace(num_tokens=1, vocabulary=1000)
    with torch.device(device_type()):
        torch.manual_seed(0)
        paradigm = load("next-token")(config, space, conditions).eval()
        condition = Condition.of(conditions.example(batch))
    generator = torch.Generator(device_type())

    @torch.inference_mode()
    def sample() -> Tensor:
        return paradigm.sample(condition, steps=None, guidance=1.0, temperature=1.0, generator=generator.manual_seed(0))

    return paradigm, condition, generator, sample


def vector_products(num_values: int) -> Callable[[], object]:
    """Products with a vector that read so many fp32 values or a few more once: the least that a token of a decoder costs."""
    columns = math.ceil(num_values / VECTOR_ROWS)
    with torch.device(device_type()):
        matrix, vector = torch.randn(VECTOR_ROWS, columns), torch.randn(columns)
    return lambda: matrix @ vector


def measure_decoding() -> Iterator[dict[str, Any]]:
    """One row: seconds of reading the weights that each token needs, once per token, over those of decoding at batch 1.

    Read once per token are the weights of attention and MLP and the logits; what depends on the condition alone is not.
    """
    paradigm, _, _, sample = token_sampler(DECODING, 1)
    blocks = [*paradigm.backbone.blocks, paradigm.get_submodule("head")]
    read = sum(p.numel() for block in blocks for name, p in block.named_parameters() if not name.startswith("modulation"))
    product = vector_products(read)
    taken = rounds({"read": lambda: [product() for _ in range(CACHE_TOKENS)], "sample": sample}, repeats=5)
    place: dict[str, Any] = {"size": f"{DECODING.width}x{DECODING.depth}", "batch": 1, "dtype": "fp32", "tokens": CACHE_TOKENS}
    share = ratio(taken["read"], taken["sample"])
    yield row("sampling", "next-token", "share of the bound by reading weights", share, "1", ">= 0.6", **place)


def measure_cache() -> Iterator[dict[str, Any]]:
    """One row: sampling 256 tokens without the key-value cache over sampling with it."""
    config = BackboneConfig(width=CACHE_WIDTH, depth=CACHE_DEPTH, num_heads=CACHE_HEADS)
    paradigm, condition, generator, fast = token_sampler(config, CACHE_BATCH)

    def slow() -> Tensor:
        return sample_without_cache(paradigm, condition, 1.0, generator.manual_seed(0))

    taken = rounds({"fast": fast, "slow": slow}, repeats=3)
    place: dict[str, Any] = {
        "size": f"{CACHE_WIDTH}x{CACHE_DEPTH}",
        "batch": CACHE_BATCH,
        "dtype": "fp32",
        "tokens": CACHE_TOKENS,
    }
    yield row(
        "sampling", "next-token", "without cache over with cache", ratio(taken["slow"], taken["fast"]), "1", ">= 5", **place
    )


def measure_modulation() -> Iterator[dict[str, Any]]:
    """Two rows: decoding that computes the modulations of the condition anew for each token over decoding that keeps them, in
    seconds and in FLOPs."""
    _, _, _, sample = token_sampler(DECODING, 1)
    place: dict[str, Any] = {"size": f"{DECODING.width}x{DECODING.depth}", "batch": 1, "dtype": "fp32", "tokens": CACHE_TOKENS}

    def anew() -> Tensor:
        with modulations_anew():
            return sample()

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            sample()
        return int(counter.get_total_flops())

    taken = rounds({"anew": anew, "kept": sample}, repeats=5)
    yield row("sampling", "next-token", "modulations anew over kept, time", ratio(taken["anew"], taken["kept"]), "1", **place)
    kept = flops()
    with modulations_anew():
        yield row("sampling", "next-token", "modulations anew over kept, FLOPs", flops() / kept, "1", **place)


@contextmanager
def modulations_anew() -> Iterator[None]:
    """While active, the slow twin of a cache's modulations: each token's are computed again."""
    kept = KeyValueCache.modulation
    KeyValueCache.modulation = lambda self, layer: layer(self._activated)  # type: ignore[method-assign]
    try:
        yield
    finally:
        KeyValueCache.modulation = kept  # type: ignore[method-assign]
