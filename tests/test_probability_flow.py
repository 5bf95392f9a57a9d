"""The probability flow returns the law that a network learned, computed with exact predictors of Gaussians."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.paradigm import TokenSpace
from paradigms.diffusion_loss import DiffusionLoss
from paradigms.gaussian_diffusion import FLOW_BEGINS, GaussianDiffusion, sampling_schedule
from paradigms.probability_flow import flow_steps

STDS, MEANS = torch.tensor([0.2, 0.3, 0.5, 0.8, 1.0, 1.3]).double(), torch.tensor([0.0, 0.5, -1.0, 0.3, 0.0, 2.0]).double()


def exact(diffusion: GaussianDiffusion) -> Callable[[Tensor, Tensor], Tensor]:
    """The best prediction of channels N(MEANS, STDS^2), in float64."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        abar, x = diffusion.abar[t].double()[:, None], x.double()
        clean = MEANS + abar.sqrt() * STDS**2 * (x - abar.sqrt() * MEANS) / (abar * STDS**2 + 1 - abar)
        noise = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        return noise if diffusion.prediction == "noise" else abar.sqrt() * noise - (1 - abar).sqrt() * clean

    return predict


def drawn(diffusion: GaussianDiffusion, sampler: str, steps: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean and variance of the draws over the initial noise's own, per channel (6,)."""
    shape = (2000, len(STDS))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    x = diffusion.sample(exact(diffusion), shape, steps=steps, temperature=temperature, generator=generator, sampler=sampler)
    variance = x.var(0) / noise.var(0)
    return x.mean(0) - temperature * STDS * noise.mean(0), variance


@pytest.mark.parametrize("noise_shift", [1.0, 4.0])
@pytest.mark.parametrize("prediction", ["noise", "velocity"])
@pytest.mark.parametrize(("steps", "tolerance"), [(10, 0.07), (25, 0.05), (100, 0.05)])
def test_the_learned_variance_is_drawn_at_temperature_1(
    prediction: str, noise_shift: float, steps: int, tolerance: float
) -> None:
    diffusion = GaussianDiffusion(prediction=prediction, noise_shift=noise_shift)
    mean, variance = drawn(diffusion, "probability-flow", steps)
    assert ((variance / STDS**2 - 1).abs() < tolerance).all(), variance / STDS**2
    allowed = 0.01 if prediction == "velocity" else 1.1 * STDS * MEANS.abs() / FLOW_BEGINS + 0.01
    assert ((mean - MEANS).abs() < allowed).all(), mean - MEANS


def test_few_ancestral_steps_draw_too_little() -> None:
    """The hidden temperature that the flow has not: between .5 and .9 of every deviation with 25 steps shifted by 4."""
    _, variance = drawn(GaussianDiffusion(prediction="velocity", noise_shift=4.0), "ancestral", 25)
    ratios = (variance / STDS**2).sqrt()
    assert (ratios > 0.45).all()
    assert (ratios < 0.9).all()


@pytest.mark.parametrize("temperature", [0.3, 0.6])
def test_temperature_multiplies_the_deviation(temperature: float) -> None:
    mean, variance = drawn(GaussianDiffusion(prediction="velocity", noise_shift=4.0), "probability-flow", 25, temperature)
    torch.testing.assert_close(variance / STDS**2, torch.full_like(STDS, temperature**2), rtol=0.05, atol=0)
    assert ((mean - MEANS).abs() < 0.02).all()


@pytest.mark.parametrize("steps", [2, 3, 8, 25, 500, 999, 1000])
@pytest.mark.parametrize("noise_shift", [1.0, 4.0])
def test_every_evaluation_is_at_another_step(steps: int, noise_shift: float) -> None:
    kept = flow_steps(sampling_schedule("cosine", noise_shift), steps)
    assert len(kept) == steps
    assert (kept[0], kept[-1]) == (0, 999)
    assert all(a < b for a, b in itertools.pairwise(kept))


def test_a_flow_of_noise_has_fewer_steps() -> None:
    diffusion = GaussianDiffusion(noise_shift=4.0)
    law = sampling_schedule("cosine", 4.0)
    last = diffusion.evaluated_steps("probability-flow", 10)[-1]
    assert (1 - law[last]) / law[last] <= FLOW_BEGINS**2 < (1 - law[last + 1]) / law[last + 1]
    with pytest.raises(ValueError, match=f"has at most {last + 1} steps here, not 1000"):
        diffusion.evaluated_steps("probability-flow", 1000)


def test_the_head_evaluates_as_often_as_it_says() -> None:
    head = DiffusionLoss(TokenSpace(kind="latents", grid=1, channels=3), 4, width=8, depth=1, steps=7, sampler="probability-flow")
    calls: list[int] = []
    head.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        settings = {"temperature": 1.0, "generator": torch.Generator().manual_seed(0)}
        assert head.sample(torch.zeros(5, 4), guidance=1.0, **settings).shape == (5, 3)
        assert head.sample(torch.zeros(10, 4), guidance=2.0, **settings).shape == (5, 3)
    assert len(calls) == 14
    with pytest.raises(ValueError, match="sampler must be 'ancestral' or 'probability-flow'"):
        DiffusionLoss(TokenSpace(kind="latents", grid=1, channels=3), 4, sampler="euler")
