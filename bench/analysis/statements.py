"""The papers' claims as they are computed: which methods each one compares, by what they are, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.analysis.effects import Estimate, advantage, catches_up, cheaper
from bench.analysis.traits import Traits

KILIAN, LI = "Kilian et al. 2024", "Li et al. 2024"
TIAN, REN, GENG, ARRIOLA = "Tian et al. 2024", "Ren et al. 2025", "Geng et al. 2025", "Arriola et al. 2025"
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A claim about every pair of methods that fits it."""

    text: str
    source: str
    better: tuple[Traits, ...]
    """The method said to be better has one of these sets of traits, the other one of `worse`."""
    worse: tuple[Traits, ...]
    same: tuple[str, ...] = ()
    """Traits in which the two must agree."""
    estimate: Estimate | None
    """None where no table can decide the claim yet; `untested` then says why."""
    superlative: bool = False
    """Whether it says "the best" or "the least": contradicted by a single significant loss."""
    budgets: Literal["top", "lowest", "all"] = "top"
    """Which rungs it reads, and so where seeds are needed."""
    untested: str = ""

    def pairs(self, methods: Mapping[str, Traits]) -> list[Pair]:
        """The pairs of methods, the one said to be better first."""
        return [
            (a, b)
            for a, first in methods.items()
            if any(_has(first, wanted) for wanted in self.better)
            for b, second in methods.items()
            if a != b
            and any(_has(second, wanted) for wanted in self.worse)
            and all(name in first and first[name] == second.get(name) for name in self.same)
        ]

    @property
    def needed(self) -> str:
        """The methods that it compares, in words."""
        sides = (" or ".join(_words(traits) for traits in side) for side in (self.better, self.worse))
        equal = f", equal in {' and '.join(self.same).replace('_', ' ')}" if self.same else ""
        return " and ".join(sides) + equal


def _has(found: Traits, wanted: Traits) -> bool:
    return all(found.get(name) == value for name, value in wanted.items())


def _words(traits: Traits) -> str:
    if "paradigm" in traits:
        return traits["paradigm"]
    return "a method with " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in traits.items())


NEXT = {"paradigm": "next-token", "order": "raster"}
MASKED, DIFFUSION = {"paradigm": "masked-token", "loss": "cross-entropy"}, {"paradigm": "diffusion"}
MAR = {"paradigm": "mar", "loss": "diffusion"}
CAUSAL, BIDIRECTIONAL = {"attention": "causal"}, {"attention": "bidirectional"}
RANDOM, RASTER = {"order": "random"}, {"order": "raster"}
ONE, SEVERAL = {"tokens_per_step": "one"}, {"tokens_per_step": "several"}
FID_AT_TOP, ACCURACY_AT_TOP = advantage("fid", -1), advantage("prompt_accuracy", -1)

STATEMENTS = (
    Statement(
        text="Token prediction follows prompts better than diffusion",
        source=KILIAN,
        better=(NEXT, MASKED),
        worse=(DIFFUSION,),
        estimate=ACCURACY_AT_TOP,
    ),
    Statement(
        text="Next-token prediction leads the token methods on prompt following",
        source=KILIAN,
        better=(NEXT,),
        worse=(MASKED,),
        estimate=ACCURACY_AT_TOP,
        superlative=True,
    ),
    Statement(
        text="At low compute next-token prediction has the best image quality",
        source=KILIAN,
        better=(NEXT,),
        worse=(DIFFUSION, MASKED),
        estimate=advantage("fid", 0),
        superlative=True,
        budgets="lowest",
    ),
    Statement(
        text="Diffusion catches up with next-token prediction on FID as compute grows",
        source=KILIAN,
        better=(DIFFUSION,),
        worse=(NEXT,),
        estimate=catches_up,
        budgets="all",
    ),
    Statement(
        text="Next-token prediction needs the least compute per sample",
        source=KILIAN,
        better=(NEXT,),
        worse=(DIFFUSION, MASKED, MAR),
        estimate=cheaper("flops_per_sample", counted=True),
        superlative=True,
    ),
    Statement(
        text="Diffusion has the lowest latency",
        source=KILIAN,
        better=(DIFFUSION,),
        worse=(NEXT, MASKED),
        estimate=cheaper("latency_ms_b1_p50", counted=False),
        superlative=True,
    ),
    Statement(
        text="Next-token prediction has the highest throughput",
        source=KILIAN,
        better=(NEXT,),
        worse=(DIFFUSION, MASKED),
        estimate=cheaper("images_per_s", counted=False, more=True),
        superlative=True,
    ),
    Statement(
        text="Averaging the weights helps diffusion most",
        source=KILIAN,
        better=(DIFFUSION,),
        worse=(NEXT, MASKED),
        estimate=None,
        superlative=True,
        untested="needs trunks at their constant rate, sampled with averaged and with raw weights; the runs of a table end in a "
        "cooldown to zero, which does the averaging's work",
    ),
    Statement(
        text="Continuous tokens with Diffusion Loss beat cross-entropy on codes",
        source=LI,
        better=({"tokens": "latents", "loss": "diffusion"},),
        worse=({"tokens": "codes", "loss": "cross-entropy"},),
        same=("order", "attention", "tokens_per_step"),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="Random order beats raster order under causal attention",
        source=LI,
        better=(CAUSAL | RANDOM,),
        worse=(CAUSAL | RASTER,),
        same=("paradigm", "loss"),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="Bidirectional attention beats causal attention in random order",
        source=LI,
        better=(RANDOM | BIDIRECTIONAL | ONE,),
        worse=(RANDOM | CAUSAL | ONE,),
        same=("loss", "tokens"),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="Random order with bidirectional attention beats raster causal",
        source=LI,
        better=(RANDOM | BIDIRECTIONAL | SEVERAL,),
        worse=(RASTER | CAUSAL,),
        same=("loss", "tokens"),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="One token per step is better than several",
        source=LI,
        better=(ONE,),
        worse=(SEVERAL,),
        same=("paradigm", "order", "attention", "loss"),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="The squared error in place of Diffusion Loss fails",
        source=LI,
        better=({"loss": "diffusion"},),
        worse=({"loss": "squared-error"},),
        same=("paradigm", "order", "attention", "tokens_per_step"),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="Next-scale prediction beats next-token prediction and diffusion",
        source=TIAN,
        better=({"paradigm": "next-scale"},),
        worse=(NEXT, DIFFUSION),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="Next-cell prediction beats next-token prediction and diffusion",
        source=REN,
        better=({"paradigm": "next-cell"},),
        worse=(NEXT, DIFFUSION),
        estimate=FID_AT_TOP,
    ),
    Statement(
        text="MeanFlow needs less compute per sample than diffusion",
        source=GENG,
        better=({"paradigm": "mean-flow"},),
        worse=(DIFFUSION,),
        estimate=cheaper("flops_per_sample", counted=True),
    ),
    Statement(
        text="Block diffusion has a better likelihood than masked diffusion",
        source=ARRIOLA,
        better=({"paradigm": "block-diffusion"},),
        worse=({"paradigm": "masked-token", "loss": "likelihood bound"},),
        estimate=advantage("validation_bits", -1),
    ),
)
