"""MeanFlow's known answers: Gaussian latents in closed form, and flow matching where both times are one."""

import pytest
import torch
from spaces import CONDITIONS, LATENTS
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, Guidance
from bench.testing import shake
from paradigms.diffusion import Diffusion
from paradigms.mean_flow import WEIGHT_FLOOR, MeanFlow

BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
SPREAD = 0.5
VALUES = LATENTS.num_tokens * LATENTS.channels


def build(cls: type = MeanFlow, **options):
    torch.manual_seed(0)
    return cls(BACKBONE, LATENTS, CONDITIONS, **options)


def conditions(size: int) -> Condition:
    return Condition.of(torch.randint(1, 14, (size, CONDITIONS.num_tokens), generator=torch.Generator().manual_seed(1)))


def deviation(t: Tensor) -> Tensor:
    """Of x_t where latents are N(0, s^2)."""
    return ((1 - t) ** 2 * SPREAD**2 + t**2).sqrt()


def exact(x: Tensor, r: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """The mean velocity of N(0, s^2): the path keeps x_t / deviation(t)."""
    r, t = r[:, None, None], t[:, None, None]
    return x * (1 - deviation(r) / deviation(t)) / (t - r)


def test_the_exact_mean_velocity_has_no_residual() -> None:
    """Along the path whose velocity is the mean one, x_t s'(t) / s(t); another velocity, as of another u, leaves some."""
    paradigm, generator = build(), torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 64, generator=generator)
    r, t = torch.minimum(first, second), torch.maximum(first, second).clamp_min(0.05)
    x = LATENTS.example(64, generator) * deviation(t)[:, None, None]
    velocity = x * ((t - (1 - t) * SPREAD**2) / deviation(t) ** 2)[:, None, None]
    image, noise = x - t[:, None, None] * velocity, x + (1 - t)[:, None, None] * velocity
    paradigm.predict = exact
    assert paradigm.residual(image, noise, r, t, conditions(64)).abs().max() < 1e-4
    paradigm.predict = lambda *inputs: 1.05 * exact(*inputs)
    assert paradigm.residual(image, noise, r, t, conditions(64)).abs().max() > 1e-2


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_one_step_and_several_lead_to_the_gaussian(steps: int | None) -> None:
    """x = s noise, exactly."""
    paradigm = build()
    paradigm.predict = exact
    settings = {"steps": steps, "guidance": 1.0, "temperature": 1.0}
    drawn = paradigm.sample(conditions(8), **settings, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, SPREAD * noise, rtol=1e-4, atol=1e-5)


def test_with_one_time_it_is_flow_matching() -> None:
    """On equal weights: the loss, and its gradient up to the adaptive weight of each image."""
    ours, theirs = build(), build(Diffusion)
    shake(ours)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.embed_time.forward = lambda t: ours.embed_time(t / 1000) + ours.embed_duration(torch.zeros_like(t))

    def draw(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        t = torch.sigmoid(torch.randn(batch, device=device))
        return t, t

    ours.draw_times = draw
    losses = []
    for paradigm in (ours, theirs):
        torch.manual_seed(5)
        losses.append(paradigm.loss(LATENTS.example(8, torch.Generator().manual_seed(2)), conditions(8))[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)
    (losses[1] / (losses[1].detach() + WEIGHT_FLOOR / VALUES)).mean().backward()
    losses[0].mean().backward()
    torch.testing.assert_close(ours.head.weight.grad, theirs.head.weight.grad, rtol=1e-4, atol=1e-6)


def test_times_are_in_order_and_three_quarters_are_one() -> None:
    r, t = build().draw_times(20_000, torch.device("cpu"))
    assert bool((r > 0).all() and (r <= t).all() and (t < 1).all())
    assert float((r == t).float().mean()) == pytest.approx(0.75, abs=0.01)
    apart = r < t
    assert float(torch.logit(torch.cat([r[apart], t[apart]])).mean()) == pytest.approx(-0.4, abs=0.05)
    r, t = build(instant_share=0.0).draw_times(100, torch.device("cpu"))
    assert bool((r < t).all())


def test_the_target_is_stopped() -> None:
    """The gradient is that of the prediction alone, 2 (u - target) du over the weight."""
    paradigm = build()
    shake(paradigm)
    tokens, noise, condition = LATENTS.example(2), LATENTS.example(2), conditions(2)
    r, t = torch.tensor([0.1, 0.3]), torch.tensor([0.9, 0.4])
    residual = paradigm.residual(tokens, noise, r, t, condition)
    (ours,) = torch.autograd.grad(residual.square().sum(), paradigm.head.weight)
    mean = paradigm.predict(tokens + t[:, None, None] * (noise - tokens), r, t, condition)
    (theirs,) = torch.autograd.grad((2 * residual.detach() * mean).sum(), paradigm.head.weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_guidance_mixes_mean_velocities() -> None:
    paradigm, condition, x = build(), conditions(4), LATENTS.example(4)
    shake(paradigm)
    r, t = torch.zeros(4), torch.full((4,), 0.7)
    with torch.no_grad():
        shown = paradigm.predict(x, r, t, condition)
        hidden = paradigm.predict(x, r, t, Condition(condition.tokens, ~condition.null))
        guided = paradigm.guided(x, 0.0, 0.7, condition, Guidance(condition, 3.0))
    torch.testing.assert_close(guided, hidden + 3 * (shown - hidden), rtol=1e-4, atol=1e-5)


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        build(instant_share=1.5)
