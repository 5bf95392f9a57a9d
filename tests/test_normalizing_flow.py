"""The normalizing flow's known answers: identity at first, exact inverse and log-determinant, the Gaussian's optimum."""

import math

import pytest
import torch
from spaces import CONDITIONS, LATENTS

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, Guidance
from bench.paradigm import TokenSpace
from bench.testing import shake
from paradigms.normalizing_flow import NormalizingFlow

BACKBONE = BackboneConfig(width=32, depth=4, num_heads=2)
TOY = TokenSpace(kind="latents", grid=2, channels=2)


def build(space: TokenSpace = LATENTS, **options) -> NormalizingFlow:
    torch.manual_seed(0)
    return NormalizingFlow(BACKBONE, space, CONDITIONS, **{"noise": 0.0, **options})


def conditions(size: int) -> Condition:
    return Condition.of(torch.randint(1, 14, (size, CONDITIONS.num_tokens), generator=torch.Generator().manual_seed(1)))


def test_it_starts_as_the_identity() -> None:
    """z = x, log-determinant 0, loss .5 mean x^2, all exactly."""
    paradigm, tokens = build(), LATENTS.example(4)
    z, log_scales = paradigm.encode(tokens, conditions(4))
    assert torch.equal(z, tokens)
    assert torch.equal(log_scales, torch.zeros(4))
    assert torch.equal(paradigm.loss(tokens, conditions(4))[0], 0.5 * tokens.square().mean((1, 2)))


@pytest.mark.parametrize("flows", [1, 2, 4])
def test_decoding_inverts_encoding(flows: int) -> None:
    paradigm, tokens, condition = build(flows=flows).eval(), LATENTS.example(4), conditions(4)
    shake(paradigm)
    with torch.no_grad():
        z, _ = paradigm.encode(tokens, condition)
        back = paradigm.decode(z, Guidance(condition, 1.0))
    assert (z - tokens).abs().max() > 0.1
    torch.testing.assert_close(back, tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flows", [1, 2])
def test_the_log_determinant_is_that_of_the_jacobian(flows: int) -> None:
    paradigm, condition = build(TOY, flows=flows), conditions(1)
    shake(paradigm)
    x = TOY.example(1, torch.Generator().manual_seed(2))
    jacobian = torch.autograd.functional.jacobian(lambda x: paradigm.encode(x, condition)[0], x).view(8, 8)
    log_scales = paradigm.encode(x, condition)[1].detach()
    assert abs(float(log_scales)) > 0.01
    assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(-8 * float(log_scales), abs=1e-4)
    earlier = jacobian.view(4, 2, 4, 2).abs().amax((1, 3)).triu(1)
    assert bool(earlier.any()) == (flows == 2)  # the second flow reads from the last token


def test_the_optimum_for_gaussian_latents() -> None:
    """N(0, s^2) costs .5 + ln s per value under the exact map; neighbors of it cost more, and its samples have the spread s."""
    s = 0.3
    paradigm, tokens, condition = build(), s * LATENTS.example(2000, torch.Generator().manual_seed(0)), conditions(2000)

    @torch.no_grad()
    def loss(scale: float) -> float:
        paradigm.flows[1].head.bias[LATENTS.channels :] = math.log(scale)
        return float(paradigm.loss(tokens, condition)[0].mean())

    losses = {scale: loss(scale) for scale in (0.25, 0.36, s)}
    assert losses[s] == pytest.approx(0.5 + math.log(s), abs=0.005)
    assert min(losses.values()) == losses[s]
    for temperature in (1.0, 0.5):
        generator = torch.Generator().manual_seed(0)
        drawn = paradigm.sample(conditions(500), steps=None, guidance=1.0, temperature=temperature, generator=generator)
        assert float(drawn.detach().std()) == pytest.approx(temperature * s, rel=0.02)


def test_noise_is_added_to_the_latents() -> None:
    """At the start .5 mean (x + noise)^2: half of its variance more."""
    tokens = torch.zeros(500, LATENTS.num_tokens, LATENTS.channels)
    assert build(noise=0.2).loss(tokens, conditions(500))[0].mean().item() == pytest.approx(0.5 * 0.2**2, rel=0.02)


def test_guidance_mixes_shift_and_log_scale() -> None:
    """What cached decoding draws obeys x = z exp(a) + b with a and b mixed from two uncached passes over the drawn tokens."""
    paradigm, condition = build(flows=1).eval(), conditions(3)
    shake(paradigm)
    z, guide = 0.3 * LATENTS.example(3, torch.Generator().manual_seed(4)), Guidance(conditions(3), 2.0)
    with torch.no_grad():
        x = paradigm.decode(z, guide)
        parts = []
        for each in (condition, Condition(condition.tokens, ~condition.null)):
            parts.append(torch.cat(paradigm.affine(paradigm.flows[0], x, *paradigm.embed_condition(each)), dim=2))
    shift, log_scale = (parts[1] + 2.0 * (parts[0] - parts[1])).chunk(2, dim=2)
    torch.testing.assert_close(x, z * log_scale.exp() + shift, rtol=1e-4, atol=1e-4)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="divide the backbone's 4 blocks"):
        build(flows=3)
    with pytest.raises(ValueError, match="at least 0"):
        build(noise=-1.0)
    with pytest.raises(ValueError, match="exactly 16 steps"):
        build().sample(conditions(1), steps=4, guidance=1.0, temperature=1.0, generator=torch.Generator())
