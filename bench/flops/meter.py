"""Bills every training step by the shapes that ran."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.backbone import Block
from bench.conditioning import Condition, ConditionSpace
from bench.flops.count import TRAINING_MULTIPLE, FlopCount, count_forward
from bench.paradigm import Paradigm

FIXED_AFTER = 6
"""Step seeds that must agree before a plan takes a loss's shapes for fixed; billing watches every step anyway."""


class LossForward(nn.Module):
    """A paradigm's loss as a module of tensors, which is what the counters can run."""

    def __init__(self, paradigm: Paradigm) -> None:
        super().__init__()
        self.paradigm = paradigm

    def forward(self, tokens: Tensor, condition_tokens: Tensor, null: Tensor) -> Tensor:
        """Tokens (B, N, C) or (B, N), condition tokens (B, M) or (B, M, F), null (B,) to the mean loss ()."""
        return self.paradigm.loss(tokens, Condition(condition_tokens, null))[0]


def meta_batch(paradigm: Paradigm, conditions: ConditionSpace, batch: int) -> tuple[Tensor, ...]:
    """Tokens (B, N, C) or (B, N), condition tokens (B, M) or (B, M, F) and null (B,) of a batch, on the meta device."""
    with torch.device("meta"):
        return paradigm.space.example(batch), conditions.example(batch), torch.empty(batch, dtype=torch.bool)


class FlopMeter:
    """Bills every training step by the shapes that ran.

    It watches the inputs of each block of the backbone and of each linear layer outside of them. A combination of shapes is
    counted once, on a meta copy under the same random seed, and looked up ever after; a paradigm has no say in it.
    """

    def __init__(self, meta_paradigm: Paradigm, conditions: ConditionSpace) -> None:
        """meta_paradigm: a copy of the trained paradigm on the meta device."""
        self._meta, self._conditions = LossForward(meta_paradigm), conditions
        self._counts: dict[tuple[int, ...], FlopCount] = {}
        self._seen: list[int] = []
        self._watch(meta_paradigm)

    def _watch(self, model: nn.Module) -> None:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._seen.append(int(inputs[0].numel()))

        inside = {part for block in model.modules() if isinstance(block, Block) for part in block.modules() if part is not block}
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | Block) and module not in inside:
                module.register_forward_pre_hook(record)

    def attach(self, paradigm: Paradigm) -> None:
        """Start watching the trained model."""
        self._watch(paradigm)

    def count(self, batch: int, seed: int) -> FlopCount:
        """Training FLOPs of the step that draws its randomness from `seed`, counted afresh on the meta copy."""
        self._seen.clear()
        inputs = meta_batch(self._meta.paradigm, self._conditions, batch)
        torch.manual_seed(seed)
        forward = count_forward(self._meta, inputs)
        count = FlopCount(TRAINING_MULTIPLE * forward.dense, TRAINING_MULTIPLE * forward.causal)
        self._counts[tuple(self._seen)] = count
        return count

    def expected(self, seeds: list[int]) -> list[FlopCount]:
        """Training FLOPs of one image under each step seed; shapes that repeat are counted once.

        The rest is skipped when the first few seeds all run the same shapes.
        """
        counts: list[FlopCount] = []
        inputs = meta_batch(self._meta.paradigm, self._conditions, 1)
        for seed in seeds:
            self._seen.clear()
            torch.manual_seed(seed)
            with torch.no_grad():
                self._meta(*inputs)
            shapes = tuple(self._seen)
            counts.append(self._counts[shapes] if shapes in self._counts else self.count(1, seed))
            if len(counts) == FIXED_AFTER and len(self._counts) == 1:
                break
        return counts

    def bill(self, batch: int, seed: int) -> FlopCount:
        """Training FLOPs of the step that just ran on the watched model; call once per step.

        Raises:
            ValueError: when the meta copy does not run the same shapes under the same seed.
        """
        shapes = tuple(self._seen)
        if shapes not in self._counts:
            state = torch.get_rng_state()
            self.count(batch, seed)
            torch.set_rng_state(state)
            if shapes not in self._counts:
                raise ValueError(
                    "the loss runs other shapes on the meta device than in training under the same seed; draw what decides a "
                    "shape first, on the CPU, from torch's global generator"
                )
        self._seen.clear()
        return self._counts[shapes]
