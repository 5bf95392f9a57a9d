"""Deliberately broken plugins: the conformance test must name what is wrong with each."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from miniature import EXPERIMENT
from torch import nn

from bench.data.open import open_data
from bench.flops import step
from bench.flops.count import FlopCount
from bench.flops.meter import FlopMeter
from bench.paradigm import Condition
from bench.plan.machine import Machine
from bench.plan.plan import make_plan
from bench.registry import BUILT_INS
from bench.testing import build, check_paradigm, example_batch, learn, learning, paradigm_checks
from paradigms.diffusion import Diffusion
from paradigms.masked_token import MaskedToken
from paradigms.next_token import NextToken, NextTokenContinuous

CHECKS = dict(paradigm_checks())


class WrongShape(NextToken):
    def loss(self, tokens, condition):
        return super().loss(tokens, condition)[0].mean(), {}


class WrongSign(NextToken):
    def loss(self, tokens, condition):
        return -super().loss(tokens, condition)[0], {}


class NotFinite(NextToken):
    def loss(self, tokens, condition):
        return super().loss(tokens, condition)[0] / 0, {}


class IdleParameter(NextToken):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.idle = nn.Linear(3, 3)


class DataDependentShape(NextToken):
    def loss(self, tokens, condition):
        rows = (tokens[:, 0] > 3).nonzero()[:, 0]
        extra = self.head.logits(self.embed_tokens(tokens[rows])).sum() * 0
        return super().loss(tokens, condition)[0] + extra, {}


class ReadsItsTarget(NextToken):
    """The classic: inputs are not shifted."""

    def contexts(self, tokens, orders, condition):
        prefix, vector = self.embed_condition(condition)
        inputs = self.embed_tokens(tokens) + self.positions
        return self.backbone(torch.cat([prefix, inputs], dim=1), vector, causal=True)[:, prefix.shape[1] :]


class LeavesTokensVisible(MaskedToken):
    """Nothing is hidden, but the loss counts as if."""

    def contexts(self, tokens, condition):
        return super().contexts(
            torch.where(tokens == self.mask_id, self.seen, tokens) if hasattr(self, "seen") else tokens, condition
        )

    def loss(self, tokens, condition):
        self.seen = tokens
        found = super().loss(tokens, condition)
        del self.seen
        return found


class KnowsTheCleanImage(Diffusion):
    """The network is told the noise through a side channel."""

    def predict(self, x, t, condition):
        out = super().predict(x, t, condition)
        return out + self.secret * self.scale if hasattr(self, "secret") and len(self.secret) == len(x) else out + 0 * self.scale

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.scale = nn.Parameter(torch.zeros(()))

    def loss(self, tokens, condition):
        state = torch.get_rng_state()
        torch.randn(len(tokens), device=tokens.device)
        self.secret = torch.randn_like(tokens) - tokens
        torch.set_rng_state(state)
        found = super().loss(tokens, condition)
        del self.secret
        return found


class OutsideTheVocabulary(NextToken):
    def sample(self, condition, **settings):
        return super().sample(condition, **settings) + self.space.vocabulary


class WrongSampleShape(NextToken):
    def sample(self, condition, **settings):
        return super().sample(condition, **settings)[:, :-1]


class IgnoresCondition(NextToken):
    def sample(self, condition, **settings):
        return super().sample(Condition.of(torch.zeros_like(condition.tokens)), **{**settings, "guidance": 1.0})


class IgnoresGenerator(NextToken):
    def sample(self, condition, *, generator, **settings):
        return super().sample(condition, generator=torch.Generator(generator.device).manual_seed(0), **settings)


class UsesAnotherGenerator(NextToken):
    def sample(self, condition, *, generator, **settings):
        seed = int(np.random.default_rng().integers(1 << 30))
        return super().sample(condition, generator=torch.Generator(generator.device).manual_seed(seed), **settings)


class IgnoresGuidance(NextToken):
    def sample(self, condition, *, guidance, **settings):
        return super().sample(condition, guidance=1.0, **settings)


class Dropout(NextToken):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.drop = nn.Dropout(0.5)

    def contexts(self, tokens, orders, condition):
        return self.drop(super().contexts(tokens, orders, condition))


class KeepsStatistics(NextToken):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.register_buffer("calls", torch.zeros(()))

    def loss(self, tokens, condition):
        self.calls += 1
        return super().loss(tokens, condition)


class HidesItsCost(NextToken):
    """Does less where it is counted."""

    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        if tokens.device.type != "meta":
            found = found + 0 * super().loss(tokens, condition)[0]
        return found, scalars


class UnknownOperator(NextToken):
    def contexts(self, tokens, orders, condition):
        return torch.cdist(super().contexts(tokens, orders, condition), torch.eye(32, device=self.device)[None]) * 1.0


class NotDeterministic(NextToken):
    def loss(self, tokens, condition):
        return super().loss(tokens, condition)[0] * float(np.random.default_rng().uniform(1, 2)), {}


class LearnsNothing(NextToken):
    """A gradient that points nowhere: the loss sees a copy of the network's output."""

    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        return found.detach() + 1e-9 * sum(p.square().sum() for p in self.parameters()), scalars


class ScalarsAreNumbers(NextToken):
    def loss(self, tokens, condition):
        return super().loss(tokens, condition)[0], {"codes": 3}


class NoiseByPlace(Diffusion):
    """Noise with the place as the leading axis: half a batch would get other noise."""

    def loss(self, tokens, condition):
        t = torch.rand(tokens.shape[1], len(tokens)).T
        return super().loss(tokens * t[..., None], condition)


class MixesImages(NextToken):
    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        return (found + found.mean()) / 2, scalars


class FlipsASign(Diffusion):
    """The sampler walks the wrong way."""

    def guided(self, x, t, condition, guide):
        return -super().guided(x, t, condition, guide)


class SkipsABlock(NextToken):
    """The sampler leaves out a block that was trained."""

    def sample(self, condition, **settings):
        block = self.backbone.blocks[1]
        whole = block.forward

        def skipped(x, *rest):
            whole(x, *rest)
            return x

        block.forward = skipped
        try:
            return super().sample(condition, **settings)
        finally:
            block.forward = whole


class TwiceTheDepth(NextToken):
    def __init__(self, backbone, space, conditions, **options):
        super().__init__(replace(backbone, depth=2 * backbone.depth), space, conditions, **options)


class CheapOnMeta(Diffusion):
    """States the cost of one step and takes many."""

    def sample(self, condition, *, steps, **settings):
        return super().sample(condition, steps=1 if self.device.type == "meta" else steps, **settings)


class KeepsSamples(Diffusion):
    """The second call for a condition costs nothing."""

    kept: ClassVar[dict] = {}

    def sample(self, condition, *, generator, **settings):
        key = (str(condition.tokens.tolist()) if self.device.type != "meta" else "", generator.initial_seed(), str(settings))
        if key not in self.kept or self.device.type == "meta":
            self.kept[key] = super().sample(condition, generator=generator, **settings)
        return self.kept[key]


class KeepsSamplesByWeights(KeepsSamples):
    """The same where FLOPs are not looked at."""

    kept: ClassVar[dict] = {}


class ReplaysItsTokens(NextToken):
    """Gives back the images that its loss saw."""

    seen: ClassVar[list] = []

    def loss(self, tokens, condition):
        if tokens.device.type != "meta":
            self.seen[:] = [tokens]
        return super().loss(tokens, condition)

    def sample(self, condition, **settings):
        drawn = super().sample(condition, **settings)
        return self.seen[0][: len(drawn)] if self.seen and self.device.type != "meta" else drawn


class LearnsInItsLoss(NextToken):
    """Writes tokens into its weights past the optimizer."""

    def loss(self, tokens, condition):
        with torch.no_grad():
            self.positions[0, 0] += 1
        return super().loss(tokens, condition)


class IgnoresSteps(Diffusion):
    def sample(self, condition, *, steps, **settings):
        return super().sample(condition, steps=3, **settings)


class PatchesTheMeter(NextToken):
    """Bills a third."""

    def loss(self, tokens, condition):
        FlopMeter.bill = lambda meter, batch, seed: FlopCount(1, 1)
        return super().loss(tokens, condition)


class Stumbles(NextToken):
    def sample(self, condition, **settings):
        raise KeyError("what the author\nforgot")


@pytest.mark.parametrize(
    ("plugin", "name", "said"),
    [
        (WrongShape, "loss-shape", "one value per image"),
        (NotFinite, "loss-values", "not finite"),
        (IdleParameter, "learning", "without gradient in 20 steps: idle.weight"),
        (DataDependentShape, "training-cost", "cannot be counted"),
        (ReadsItsTarget, "memory", "reads the token that it predicts"),
        (OutsideTheVocabulary, "samples", "int64 codes in 0..31"),
        (WrongSampleShape, "samples", "samples have shape"),
        (IgnoresCondition, "samples", "ignores the condition"),
        (IgnoresGenerator, "samples", "ignores the generator"),
        (UsesAnotherGenerator, "samples", "equal generators gives different tokens"),
        (IgnoresGuidance, "samples", "ignores guidance"),
        (Dropout, "loss-modes", "differs between train() and eval()"),
        (KeepsStatistics, "loss-buffers", "changes buffers"),
        (HidesItsCost, "training-cost", "other products on the meta device"),
        (UnknownOperator, "training-cost", "does not know aten._euclidean_dist"),
        (NotDeterministic, "loss-repetition", "differs between two calls under the same torch seed"),
        (NoiseByPlace, "loss-division", "the loss of half a batch"),
        (MixesImages, "loss-division", "the loss of half a batch"),
        (ScalarsAreNumbers, "loss-scalars", "names to scalar tensors"),
        (FlipsASign, "memory", "its sampler does not follow what was trained"),
        (TwiceTheDepth, "backbone", "depth 4, not the 2 that it was given"),
        (CheapOnMeta, "sampling-cost", "where they are counted"),
        (KeepsSamples, "sampling-cost", "runs 0 FLOPs on real tensors"),
        (KeepsSamplesByWeights, "state", "samples stay when the weights change"),
        (ReplaysItsTokens, "state", "it replays them"),
        (LearnsInItsLoss, "loss-buffers", "changes buffers or parameters"),
        (IgnoresSteps, "sampling-cost", "ignores steps"),
        (Stumbles, "samples", "fails with KeyError"),
        (SkipsABlock, "parameters", "leaves out (those of training_only may be): backbone.blocks.1"),
        (KnowsTheCleanImage, "parameters", "may be): scale"),
        *(
            pytest.param(cls, "memory", "it draws others", marks=pytest.mark.slow)
            for cls in (WrongSign, LeavesTokensVisible, LearnsNothing)
        ),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_the_check_names_what_is_wrong(
    plugin: type, name: str, said: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that `make test` lets learn get the first number of steps alone."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(learning, "STEPS", learning.STEPS[:1])
    problems = CHECKS[name](plugin)
    assert any(said in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_patched_meter_is_found() -> None:
    honest = FlopMeter.bill
    assert CHECKS["harness"](NextToken) == []
    try:
        assert CHECKS["harness"](PatchesTheMeter) == ["it replaces what belongs to the suite: bench.flops.meter.FlopMeter.bill"]
    finally:
        FlopMeter.bill = honest


def test_patched_data_of_the_rule_is_found() -> None:
    product = torch.ops.aten.addmm
    honest, free = step.FORMULAS[product], step.FREE
    try:
        step.FORMULAS[product] = lambda *args, **options: honest(*args, **options) // 2
        assert CHECKS["harness"](NextToken) == ["it replaces what belongs to the suite: bench.flops.step.FORMULAS"]
        step.FORMULAS[product] = honest
        step.FREE = free | {"linalg_pinv"}
        assert CHECKS["harness"](NextToken) == ["it replaces what belongs to the suite: bench.flops.step.FREE"]
    finally:
        step.FORMULAS[product], step.FREE = honest, free


class Contrastive(Diffusion):
    """Images of a step are told from each other."""

    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        apart = (tokens.flatten(1)[:, None] - tokens.flatten(1)[None]).square().mean(2)
        return found - 0.01 * apart.mean(1), scalars


class WholeBatch(Contrastive):
    whole_batch = True


def test_a_loss_that_needs_the_whole_batch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes then, and no plan divides its batches."""
    (said,) = CHECKS["loss-division"](Contrastive)
    assert "or say `whole_batch = True`" in said
    assert CHECKS["loss-division"](WholeBatch) == []
    monkeypatch.setitem(BUILT_INS, "whole-batch", f"{__name__}:WholeBatch")
    method = replace(EXPERIMENT.methods[0], paradigm="whole-batch")
    experiment = replace(EXPERIMENT, methods=(method,))
    dataset = open_data("shapes32")
    with pytest.raises(ValueError, match="the loss of whole-batch needs a whole batch at once; leave out DEVICES"):
        make_plan(experiment, round(4e9), dataset, Machine("cpu", 1, 1, micro_batch=2))
    assert make_plan(experiment, round(4e9), dataset, Machine("cpu", 1, 1)).runs


class SteepSchedule(Diffusion):
    """Nearly all times are near noise."""

    def shift_time(self, t):
        return 20 * t / (1 + 19 * t)


class AdaptiveLoss(Diffusion):
    """Divided by itself: constant near 1 while it learns (Geng et al. 2025, section 4.3)."""

    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        return found / (found.detach() + 1e-3), scalars


class Density(NextTokenContinuous):
    """A mixture of narrow Gaussians: the negative log-density falls below 0."""

    def __init__(self, *args):
        super().__init__(*args, head="mixture", head_options={"components": 4, "std_minimum": 1e-3})


class DistilledGuidance(NextToken):
    """Was trained with its guidance, and takes no other."""

    def sample(self, condition, *, guidance, **settings):
        if guidance != 1:
            raise ValueError(f"guidance is part of what was trained; it must be 1, not {guidance}")
        return super().sample(condition, guidance=1.0, **settings)


class AuxiliaryHead(NextToken):
    """A layer that the loss alone reads, which it says."""

    training_only = ("auxiliary",)

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.auxiliary = nn.Linear(32, 1)

    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        return found + self.auxiliary(self.embed_tokens(tokens)).square().mean((1, 2)), scalars


def test_a_layer_that_the_loss_alone_reads_is_declared() -> None:
    assert CHECKS["parameters"](AuxiliaryHead) == []
    (said,) = CHECKS["parameters"](type("Undeclared", (AuxiliaryHead,), {"training_only": ()}))
    assert said.endswith(": auxiliary.weight")


@pytest.mark.parametrize(
    ("plugin", "name"),
    [
        pytest.param(cls, name, marks=[pytest.mark.slow] if name in ("memory", "sampling-cost") else [])
        for cls in (SteepSchedule, AdaptiveLoss, Density, DistilledGuidance)
        for name in ("loss-values", "learning", "memory", "samples", "parameters", "sampling-cost")
    ],
)
def test_honest_plugins_pass(plugin: type, name: str) -> None:
    assert CHECKS[name](plugin) == []


@pytest.mark.slow
def test_the_density_is_negative_once_it_is_learnt() -> None:
    paradigm = build(Density)
    assert learn(paradigm, *example_batch(paradigm.space), 200)[-1] < 0


class Undeclared(NextToken):
    reads = "pixels"


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (Undeclared, ["reads is 'pixels'"]),
        (WrongShape, ["one value per image"]),
        (NotDeterministic, ["same torch seed", "train() and eval()", "the loss of half a batch"]),
        (IgnoresGuidance, ["ignores guidance"]),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_the_whole_check_says_what_the_first_stage_with_problems_finds(plugin: type, said: list[str]) -> None:
    problems = check_paradigm(plugin)
    assert len(problems) == len(said), problems
    assert all(part in problem for part, problem in zip(said, problems, strict=True))
