"""Bills every training step by the products that ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode

from bench.backbone import Attention, Block, Hooks
from bench.conditioning import Condition, ConditionSpace
from bench.config.experiment import FlopRule
from bench.flops import meta_outputs
from bench.flops.count import TRAINING_MULTIPLE, FlopCount, count_forward
from bench.flops.step import count_step
from bench.flops.watch import ProductWatch
from bench.paradigm import Paradigm

FIXED_AFTER = 6
"""Step seeds that must agree before a plan takes a loss's shapes for fixed; billing watches every step anyway."""
COUNTED_TWICE = 2
"""Steps of equal products that are counted before their cost is looked up."""
TRUSTED_AFTER = 4
"""Counted steps that must cost what their products alone say before a plan takes the rest's costs from their products."""


class LossForward(nn.Module):
    """A paradigm's loss as a module of tensors, which is what the counters can run."""

    def __init__(self, paradigm: Paradigm) -> None:
        super().__init__()
        self.paradigm = paradigm

    def forward(self, tokens: Tensor, condition_tokens: Tensor, null: Tensor, features: Tensor | None = None) -> Tensor:
        """Tokens (B, N, C) or (B, N), condition tokens (B, M) or (B, M, F), null (B,), perhaps features (B, P, F), to the loss of
        each image (B,)."""
        return self.paradigm.loss(tokens, Condition(condition_tokens, null, features))[0]


def explained(products: tuple[int, ...]) -> int:
    """FLOPs of a step of these products (bench/flops/watch.py) and of their derivatives where gradients flow; of nothing else."""
    return sum(2 * (note >> 3) * (1 + (note >> 2 & 1) * ((note >> 1 & 1) + (note & 1))) for note in products)


def given(parameters: Iterable[Tensor], x: Tensor, how: Hooks) -> tuple[Any, ...]:
    """What the products of a block with these parameters (...) follow from, given x (B, T, D): shapes, gradients, attention."""
    hooks = ((each.shape, each.requires_grad) if isinstance(each, Tensor) else each for each in how)
    return (x.shape, x.requires_grad, torch.is_grad_enabled(), *hooks, *(p.requires_grad for p in parameters))


class RememberedBlocks:
    """While active, a block of the meta copy that gets what one got before is not run: its products are noted again.

    The blocks of a backbone are alike, so that watching a loss costs one block per kind of input instead of all.
    """

    def __init__(self, paradigm: Paradigm, watch: ProductWatch) -> None:
        self._blocks = [block for block in paradigm.modules() if isinstance(block, Block)]
        self._watch = watch
        self._known: dict[tuple[Any, ...], tuple[list[int], int, bool]] = {}

    def __enter__(self) -> None:
        for block in self._blocks:
            block.__dict__["run_whole"] = partial(self._run, block)

    def __exit__(self, *_: object) -> None:
        for block in self._blocks:
            del block.__dict__["run_whole"]

    def _run(self, block: Block, x: Tensor, how: Hooks) -> Tensor:
        key, seen = (x.dtype, *given(block.parameters(), x, how)), self._watch.seen
        if key not in self._known:
            before, discount = len(seen), self._watch.causal_discount
            out = Block.run_whole(block, x, how)
            self._known[key] = seen[before:], self._watch.causal_discount - discount, out.requires_grad
            return out
        notes, discount, graph = self._known[key]
        seen.extend(notes)
        self._watch.causal_discount += discount
        return torch.empty_like(x, requires_grad=graph)


PLAIN = (Block, Attention, nn.LayerNorm, nn.Sequential, nn.Linear, nn.GELU)
"""What the backbone's own blocks are made of."""


class WholeBlock:
    """Runs a block of the backbone and notes it as a whole, by what it gets, without watching it.

    Its products follow from that as long as it is made of what the backbone puts into it and nobody hangs hooks into it;
    otherwise they are watched. Most calls of a loss lie in blocks: the watch is cheap for small models (docs/log.md), and
    a compiler need not trace it. The meta copy notes the same, and the causal discount beside it.
    """

    def __init__(self, block: Block, watch: ProductWatch) -> None:
        self._watch, self._run, self._parameters = watch, block.run_whole, list(block.parameters())
        parts = list(block.modules())
        self._children = [(part._modules, dict(part._modules)) for part in parts]
        self._hooks = [hooks for part in parts for hooks in (part._forward_pre_hooks, part._forward_hooks)]

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether it is a block of the backbone, and all its parts the backbone's."""
        return type(block) is Block and all(type(part) in PLAIN for part in block.modules())

    def __call__(self, x: Tensor, how: Hooks) -> Tensor:
        """The block's (B, T, D)."""
        watch = self._watch
        if _get_current_function_mode() is not watch or any(self._hooks) or any(now != then for now, then in self._children):
            return self._run(x, how)
        before = len(watch.seen)
        out = self._run(x, how) if x.is_meta else None  # watched, for the causal discount
        del watch.seen[before:]
        watch.__exit__(None, None, None)
        try:
            watch.seen.append(hash(given(self._parameters, x, how)))
            return self._run(x, how) if out is None else out
        finally:
            watch.__enter__()


def meta_batch(paradigm: Paradigm, conditions: ConditionSpace, batch: int) -> tuple[Tensor, ...]:
    """Tokens (B, N, C) or (B, N), condition tokens (B, M) or (B, M, F), null (B,), and features (B, P, F) where the loss reads
    them, of a batch on the meta device."""
    space = paradigm.space
    with torch.device("meta"):
        inputs = space.example(batch), conditions.example(batch), torch.empty(batch, dtype=torch.bool)
        return inputs if space.features is None else (*inputs, space.features.example(batch))


class FlopMeter:
    """Bills every training step by the products that ran.

    It watches every product that the loss calls. A list of products is counted on a meta copy under the same random seed and
    looked up ever after; a paradigm has no say in it. The rule says what is counted: "meta-v1", 3 x the forward pass; "meta-v2",
    the whole step.
    """

    def __init__(self, meta_paradigm: Paradigm, conditions: ConditionSpace, rule: FlopRule) -> None:
        """meta_paradigm: a copy of the trained paradigm on the meta device."""
        self._meta, self._conditions, self.rule = LossForward(meta_paradigm), conditions, rule
        self._counts: dict[tuple[int, ...], FlopCount] = {}
        self._times_counted: dict[tuple[int, ...], int] = {}
        self._watch = ProductWatch()
        self._blocks = RememberedBlocks(meta_paradigm, self._watch)
        self._frozen = meta_paradigm.space.features.flops if meta_paradigm.space.features else 0

    def attach(self, paradigm: Paradigm) -> None:
        """Make ready for a trained model: its blocks, compiled or not, are noted as a whole."""
        for model in (paradigm, self._meta):
            for block in model.modules():
                if WholeBlock.fits(block):
                    block.__dict__["run_whole"] = WholeBlock(cast(Block, block), self._watch)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the loss of a step that `bill` is then asked about; the innermost of torch's modes."""
        self._watch.clear()
        with self._watch:
            yield

    def _products(self, batch: int, seed: int) -> tuple[tuple[int, ...], int]:
        """What the meta copy's loss runs under a step seed, and the FLOPs of it that a causal mask saves."""
        inputs = meta_batch(self._meta.paradigm, self._conditions, batch)
        torch.manual_seed(seed)
        with meta_outputs.Remembered(), self.watching():
            self._meta(*inputs)
        return tuple(self._watch.seen), self._watch.causal_discount

    def _remembered_products(self, batch: int, seed: int) -> tuple[tuple[int, ...], int]:
        """The same without running a block twice on equal inputs."""
        with self._blocks:
            return self._products(batch, seed)

    def count(self, batch: int, seed: int) -> FlopCount:
        """Training FLOPs of the step that draws its randomness from `seed`, counted afresh on the meta copy.

        Raises:
            UncountedOperatorError: when the rule does not know an operator.
            ValueError: when equal products cost differently.
        """
        return self._count(*self._products(batch, seed), batch, seed)

    def _count(self, products: tuple[int, ...], discount: int, batch: int, seed: int) -> FlopCount:
        """The same for a step whose products on the meta copy are known."""
        inputs = meta_batch(self._meta.paradigm, self._conditions, batch)
        torch.manual_seed(seed)
        if self.rule == "meta-v1":
            forward = count_forward(self._meta, inputs)
            count = FlopCount(TRAINING_MULTIPLE * forward.dense, TRAINING_MULTIPLE * forward.causal)
        else:
            flops = count_step(self._meta, inputs, self._meta.paradigm.backbone.config.width)
            count = FlopCount(flops, flops - discount)
        if self._counts.setdefault(products, count) != count:
            raise ValueError(
                f"two steps whose losses run the same products cost {self._counts[products].dense:,} and {count.dense:,} FLOPs: "
                "what hooks or the backward pass run must follow from the loss's products"
            )
        self._times_counted[products] = self._times_counted.get(products, 0) + 1
        return count

    def _products_explain(self) -> bool:
        """Whether enough steps were counted and all cost what their products alone say."""
        enough = sum(self._times_counted.values()) >= TRUSTED_AFTER
        return enough and all(count.dense == explained(products) for products, count in self._counts.items())

    def expected(self, seeds: list[int], batch: int) -> list[FlopCount]:
        """Training FLOPs of a batch under each step seed; products that repeat are counted twice, to see that they cost the same.

        The rest is skipped when the first few seeds all run the same products, and taken from the products where the first counts
        were what these say. What a run is billed is always counted.
        """
        counts: list[FlopCount] = []
        times = COUNTED_TWICE if self.rule == "meta-v2" else 1
        watch = self._products
        for seed in seeds:
            try:
                products, discount = watch(batch, seed)
            except Exception:  # a loss that in this draw looks into the graph behind a block that was not run
                if watch == self._products:
                    raise
                watch = self._products
                products, discount = watch(batch, seed)
            if not counts and self._blocks_agree(products, discount, batch, seed):
                watch = self._remembered_products
            if self._times_counted.get(products, 0) >= times:
                counts.append(self._counts[products])
            elif self.rule == "meta-v2" and self._products_explain():
                flops = explained(products)
                counts.append(FlopCount(flops, flops - discount))
            else:
                counts.append(self._count(products, discount, batch, seed))
            if len(counts) == FIXED_AFTER and len(self._counts) == 1:
                break
        return [self._with_features(count, batch) for count in counts]

    def _blocks_agree(self, products: tuple[int, ...], discount: int, batch: int, seed: int) -> bool:
        """Whether the products are the same where a block that ran before on such inputs is not run again; a loss that looks into
        the graph behind a block may not allow it."""
        try:
            return self._remembered_products(batch, seed) == (products, discount)
        except Exception:  # whatever a plugin does with what a block returned
            return False

    def bill(self, batch: int, seed: int) -> FlopCount:
        """Training FLOPs of the step whose loss was just watched; call once per step.

        Raises:
            ValueError: when the meta copy does not run the same products under the same seed.
        """
        products = tuple(self._watch.seen)
        if products not in self._counts:
            self.recount(batch, seed)
            if products not in self._counts:
                raise ValueError(
                    "the loss runs other products on the meta device than in training under the same seed; draw what decides a "
                    "shape first, on the CPU, from torch's global generator"
                )
        return self._with_features(self._counts[products], batch)

    def recount(self, batch: int, seed: int) -> FlopCount:
        """Training FLOPs of the step of this seed by the meta copy alone, whether it was watched or not."""
        state = torch.get_rng_state()
        count = self.count(batch, seed)
        torch.set_rng_state(state)
        return self._with_features(count, batch)

    def _with_features(self, count: FlopCount, batch: int) -> FlopCount:
        """A step's FLOPs and those of the frozen network for its images, as if the latent cache did not keep what it says."""
        return FlopCount(count.dense + batch * self._frozen, count.causal + batch * self._frozen)
