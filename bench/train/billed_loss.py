"""A step's loss and its bill: watched as it runs, or compiled as a whole where a run is long enough to repay that.

A watched loss may run other products in every step. A compiled one runs those of its graph: torch compiles the whole loss into
one or refuses, and compiles again where anything that the graph rests on has changed. So a loss is compiled only where its meta
copy runs the same products under several seeds; the step that compiles it is counted on the meta copy under its own seed; and
with a second graph the watch takes over for good. Random draws are those of the plain loss, and losses agree but for rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.config.run import Run
from bench.flops.count import FlopCount
from bench.flops.meter import FIXED_AFTER, FlopMeter
from bench.hub import cache_root
from bench.paradigm import Paradigm
from bench.randomness import seed_draws, step_seed

COMPILED_FLOPS = 2e12
"""Budget from which a loss is compiled. Compiling takes 18 to 45 s on a busy core and saves a quarter of a step, and a run of so
many FLOPs at COMPILED_WIDTH or less trains for three minutes or more on one (docs/log.md)."""
COMPILED_WIDTH = 96
"""Wider ones spend their time in products, which a compiler leaves as they are."""

Loss = Callable[[Tensor, Condition], tuple[Tensor, dict[str, Tensor]]]


def repays(run: Run) -> bool:
    """Whether a run on a CPU is long and small enough for a compiled loss. It follows from the run alone, so that one that was
    interrupted goes on as it began."""
    return run.flops_budget >= COMPILED_FLOPS and run.width <= COMPILED_WIDTH


class BilledLoss:
    """Calls a paradigm's loss for one training step after another, and bills each."""

    def __init__(self, run: Run, paradigm: Paradigm, meter: FlopMeter, *, compiles: bool) -> None:
        """compiles: where the loss runs the same products in every step."""
        self._run, self._paradigm, self._meter = run, paradigm, meter
        self._compiled: Loss | None = None
        self._bill = self._fixed_bill() if compiles else None
        if self._bill is None:
            meter.attach(paradigm)
            return
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))  # kept from one sweep to the next
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # every core has its worker
        torch.compiler.reset()
        self._compiled = torch.compile(paradigm.loss, fullgraph=True, dynamic=False, options={"fallback_random": True})
        self._graphs_before, self._graphs = graphs(), 0

    @property
    def is_compiled(self) -> bool:
        """Whether the next step's loss is."""
        return self._compiled is not None

    def _fixed_bill(self) -> FlopCount | None:
        """What every step costs; None where steps differ."""
        seeds = [step_seed(self._run.seed, step, "loss") for step in range(FIXED_AFTER)]
        first, *others = self._meter.expected(seeds, self._run.recipe.batch_size)
        return first if all(other == first for other in others) else None

    def __call__(self, tokens: Tensor, condition: Condition, seed: int) -> tuple[Tensor, FlopCount]:
        """Loss per image (B,) of a part of a step's images under the step's seed, and its training FLOPs."""
        seed_draws(seed, tokens.device)
        if self._compiled is None or self._bill is None:
            return self._watched(tokens, condition, seed)
        try:
            loss, _ = self._compiled(tokens, condition)
        except Exception:  # whatever a compiler says; what is wrong with the loss itself, the loss says
            self._watch_from_now_on()
            seed_draws(seed, tokens.device)
            return self._watched(tokens, condition, seed)
        known, self._graphs = self._graphs, graphs() - self._graphs_before
        if self._graphs == known:
            return loss, self._bill
        bill = self._meter.recount(len(tokens), seed)
        if known or bill != self._bill:
            self._watch_from_now_on()
        return loss, bill

    def _watch_from_now_on(self) -> None:
        self._compiled = None
        self._meter.attach(self._paradigm)

    def _watched(self, tokens: Tensor, condition: Condition, seed: int) -> tuple[Tensor, FlopCount]:
        with self._meter.watching():
            loss, _ = self._paradigm.loss(tokens, condition)
        return loss, self._meter.bill(len(tokens), seed)


def graphs() -> int:
    """Graphs that torch has compiled in this process."""
    from torch._dynamo.utils import counters  # takes seconds, which a worker that compiles nothing need not wait

    return int(counters["stats"]["unique_graphs"])
