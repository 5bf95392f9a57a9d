"""Deliberately broken plugins: the conformance test must name what is wrong with each."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.paradigm import Condition
from bench.testing import check_paradigm, paradigm_checks
from paradigms.diffusion import Diffusion
from paradigms.masked_token import MaskedToken
from paradigms.next_token import NextToken

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


@pytest.mark.parametrize(
    ("plugin", "name", "said"),
    [
        (WrongShape, "loss-shape", "one value per image"),
        (WrongSign, "loss-values", "not positive"),
        (NotFinite, "loss-values", "not finite"),
        (IdleParameter, "learning", "without gradient after training: idle.weight"),
        (DataDependentShape, "counting", "cannot be counted"),
        (ReadsItsTarget, "leaks", "reads the token that it predicts"),
        (LeavesTokensVisible, "leaks", "reads the token that it predicts"),
        (KnowsTheCleanImage, "leaks", "reads the token that it predicts"),
        (OutsideTheVocabulary, "samples", "int64 codes in 0..31"),
        (WrongSampleShape, "samples", "samples have shape"),
        (IgnoresCondition, "samples", "ignores the condition"),
        (IgnoresGenerator, "samples", "ignores the generator"),
        (UsesAnotherGenerator, "samples", "equal generators gives different tokens"),
        (IgnoresGuidance, "samples", "ignores guidance"),
        (Dropout, "loss-modes", "differs between train() and eval()"),
        (KeepsStatistics, "loss-buffers", "changes buffers"),
        (HidesItsCost, "counting", "where they are counted"),
        (UnknownOperator, "counting", "does not know aten::cdist"),
        (NotDeterministic, "loss-repetition", "differs between two calls under the same torch seed"),
        (LearnsNothing, "learning", "do not reduce the loss"),
        (NoiseByPlace, "loss-division", "the loss of half a batch"),
        (MixesImages, "loss-division", "the loss of half a batch"),
        (ScalarsAreNumbers, "loss-scalars", "names to scalar tensors"),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_the_check_names_what_is_wrong(plugin: type, name: str, said: str) -> None:
    problems = CHECKS[name](plugin)
    assert any(said in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


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
