"""Deliberately broken plugins: the conformance test must name what is wrong with each."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.paradigm import Condition
from bench.testing import check_paradigm
from paradigms.diffusion import Diffusion
from paradigms.masked_token import MaskedToken
from paradigms.next_token import NextToken


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
    ("plugin", "said"),
    [
        (WrongShape, "one value per image"),
        (WrongSign, "not positive"),
        (NotFinite, "not finite"),
        (IdleParameter, "without gradient after training: idle.weight"),
        (DataDependentShape, "cannot be counted"),
        (ReadsItsTarget, "reads the token that it predicts"),
        (LeavesTokensVisible, "reads the token that it predicts"),
        (KnowsTheCleanImage, "reads the token that it predicts"),
        (OutsideTheVocabulary, "int64 codes in 0..31"),
        (WrongSampleShape, "samples have shape"),
        (IgnoresCondition, "ignores the condition"),
        (IgnoresGenerator, "ignores the generator"),
        (UsesAnotherGenerator, "equal generators gives different tokens"),
        (IgnoresGuidance, "ignores guidance"),
        (Dropout, "differs between train() and eval()"),
        (KeepsStatistics, "changes buffers"),
        (HidesItsCost, "where they are counted"),
        (UnknownOperator, "does not know aten::cdist"),
        (NotDeterministic, "differs between two calls under the same torch seed"),
        (LearnsNothing, "do not reduce the loss"),
        (NoiseByPlace, "the loss of half a batch"),
        (MixesImages, "the loss of half a batch"),
        (ScalarsAreNumbers, "names to scalar tensors"),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_the_check_names_what_is_wrong(plugin: type, said: str) -> None:
    problems = check_paradigm(plugin)
    assert any(said in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_the_originals_are_not_accused() -> None:
    assert check_paradigm(NextToken) == check_paradigm(MaskedToken) == []
