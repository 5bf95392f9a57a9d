"""The energy head: expected distances of known laws, what its score rewards, and its published sampler settings."""

import math

import pytest
import torch
from spaces import CODES, LATENTS
from torch import Tensor

from bench.paradigm import TokenSpace
from bench.testing import shake
from paradigms.energy_head import EnergyHead
from paradigms.heads import make_head

ONE = TokenSpace(kind="latents", grid=1, channels=1)
SMALL = {"width": 32, "depth": 2, "noise_channels": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Normal(EnergyHead):
    """Draws from N(0, 1) in every channel, whatever its weights."""

    def generate(self, embedded: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        return torch.special.ndtri((noise[:, : self.out.out_features].double() + 0.5).clamp(1e-9, 1 - 1e-9))


def mean_and_error(loss: Tensor) -> tuple[float, float]:
    return float(loss.mean()), float(loss.std() / math.sqrt(len(loss)))


@pytest.mark.parametrize(("channels", "expected"), [(1, 1.1284), (16, 5.5692)])
def test_the_true_law_has_the_expected_distance_of_two_draws(channels: int, expected: float) -> None:
    """For N(0, I_d) all three distances are equal in the mean, E|X - X'| = 2 Gamma((d + 1) / 2) / Gamma(d / 2)."""
    assert 2 * math.exp(math.lgamma((channels + 1) / 2) - math.lgamma(channels / 2)) == pytest.approx(expected, abs=1e-4)
    head = Normal(TokenSpace(kind="latents", grid=1, channels=channels), 2, width=8, depth=1, noise_channels=channels)
    torch.manual_seed(0)
    mean, error = mean_and_error(head.loss(torch.zeros(100_000, 2), torch.randn(100_000, channels, dtype=torch.float64)))
    assert abs(mean - expected) < 4 * error < 0.03


def test_a_wider_or_narrower_law_scores_worse() -> None:
    """A proper score: for N(0, 1) data the least loss among N(0, s^2) is at s = 1; with the squared distance s = 0 is as good."""
    target = torch.randn(200_000, 1, generator=generator(1), dtype=torch.float64)
    for exponent in (1.0, 1.5):
        losses = []
        for scale in (0.5, 1.0, 2.0):
            head = Normal(ONE, 2, width=8, depth=1, noise_channels=1, exponent=exponent)
            head.generate = lambda *x, head=head, scale=scale: scale * Normal.generate(head, *x)
            torch.manual_seed(0)
            losses.append(float(head.loss(torch.zeros(len(target), 2), target).mean()))
        assert losses[1] < min(losses[0], losses[2]) - 0.02


@pytest.mark.parametrize("spread", [1.0, 0.99, 0.0])
def test_the_loss_is_what_the_draws_say_and_not_below_zero(spread: float) -> None:
    torch.manual_seed(0)
    head, draws = EnergyHead(LATENTS, 6, **SMALL, spread=spread), []
    shake(head)
    original = head.generate
    head.generate = lambda *x: draws.append(original(*x)) or draws[-1]
    target = torch.randn(500, LATENTS.channels)
    loss = head.loss(torch.randn(500, 6), target)
    first, second = draws[0].chunk(2)
    assert float((first - second).detach().abs().mean()) > 1e-3
    expected = (first - target).norm(dim=1) + (second - target).norm(dim=1) - spread * (first - second).norm(dim=1)
    torch.testing.assert_close(loss, expected)
    assert float(loss.detach().min()) >= 0


def test_the_first_step_has_finite_gradients_although_the_draws_are_equal() -> None:
    for exponent in (0.5, 1.0, 1.9):
        head = EnergyHead(LATENTS, 6, **SMALL, exponent=exponent)
        head.loss(torch.randn(5, 6), torch.zeros(5, LATENTS.channels)).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_a_two_point_law_is_learnt() -> None:
    """Of +1 and -1, equally likely, two draws lie 1 apart in the mean; the best constant would lie 0 apart, at a loss of 2."""
    torch.manual_seed(0)
    head = EnergyHead(ONE, 1, width=32, depth=1, noise_channels=8)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2, fused=True)
    losses = []
    for step in range(400):
        torch.manual_seed(step)
        target = 2.0 * torch.randint(2, (128, 1)) - 1
        loss = head.loss(torch.ones(128, 1), target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        drawn = head.sample(torch.ones(4000, 1), temperature=1.0, guidance=1.0, generator=generator())[:, 0]
    assert float((drawn[:2000] - drawn[2000:]).abs().mean()) == pytest.approx(1, abs=0.1)
    assert sum(losses[-50:]) / 50 == pytest.approx(1, abs=0.05)
    assert float((drawn.abs() - 1).abs().mean()) < 0.1
    assert abs(float(drawn.mean())) < 0.1


def test_guidance_mixes_the_vectors_and_temperature_the_shifts() -> None:
    torch.manual_seed(0)
    head = EnergyHead(LATENTS, 6, **SMALL)
    shake(head)
    rows, hidden = torch.randn(2, 5, 6)
    settings = {"temperature": 1.0, "generator": None}

    def sample(rows: Tensor, **given) -> Tensor:
        with torch.no_grad():
            return head.sample(rows, **{**settings, "generator": generator(), **given})

    guided = sample(torch.cat([rows, hidden]), guidance=3.0)
    torch.testing.assert_close(guided, sample(hidden + 3 * (rows - hidden), guidance=1.0))
    cold = sample(rows, guidance=1.0, temperature=0.5)
    for block in head.blocks:
        block.modulation.weight.data[:32] *= 0.5
        block.modulation.bias.data[:32] *= 0.5
    torch.testing.assert_close(cold, sample(rows, guidance=1.0))


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        (CODES, {}, "reads latents, not codes"),
        (LATENTS, {"exponent": 2.0}, "exponent must be above 0 and below 2"),
        (LATENTS, {"spread": 1.5}, "spread must be at least 0 and at most 1"),
    ],
)
def test_impossible_options_are_refused(space: TokenSpace, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_head("energy", space, 8, options)
