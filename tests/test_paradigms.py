"""What each paradigm must be, computed from its definition."""

import itertools
import math

import numpy as np
import pytest
import torch
from spaces import CODES, CONDITIONS, LATENTS, space_of

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, Guidance
from bench.paradigm import TokenSpace
from bench.registry import BUILT_INS, load
from bench.testing import example_batch, paradigm_checks, shake
from paradigms.diffusion_loss import DiffusionLoss
from paradigms.gaussian_diffusion import respaced_steps, signal_share
from paradigms.orders import cosine_schedule, put, take

BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
DIFFUSION_HEAD = {"head_options": {"width": 32, "depth": 2, "steps": 5, "time_features": 32, "clip": 4.0}}
ENERGY_HEAD = {"head_options": {"width": 32, "depth": 2, "noise_channels": 16}}
OPTIONS = {"mar": DIFFUSION_HEAD, "next-token-continuous": DIFFUSION_HEAD, "next-token-energy": ENERGY_HEAD}


def build(name: str, **options):
    torch.manual_seed(0)
    cls = load(name)
    return cls(BACKBONE, space_of(cls), CONDITIONS, **{**OPTIONS.get(name, {}), **options})


def batch(paradigm, size: int = 4):
    tokens, example = example_batch(paradigm.space, size)
    words = torch.randint(1, 14, (size, CONDITIONS.num_tokens), generator=torch.Generator().manual_seed(1))
    return tokens, Condition.of(words, example.features)


CHECKS = dict(paradigm_checks())


LATER = (
    "aligned-diffusion",
    "next-token-energy",
    "uniform-diffusion",
    "block-diffusion",
    "next-scale",
    "mean-flow",
    "next-cell",
    "normalizing-flow",
    "pixel-diffusion",
)
DEAR = {
    *((name, "sampling-cost") for name in ("mar", "mar-discrete", "next-token-continuous", "next-cell")),
    *((name, check) for name in LATER for check in ("parameters", "learning", "memory")),
}
"""Items that only `make slow` runs."""


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, marks=[pytest.mark.slow] if (name, check) in DEAR else [])
        for name in sorted(BUILT_INS)
        for check in CHECKS
    ],
)
def test_conforms(name: str, check: str) -> None:
    assert CHECKS[check](load(name), **OPTIONS.get(name, {})) == []


@pytest.mark.parametrize("name", sorted(BUILT_INS))
def test_guidance_of_one_is_no_guidance_bit_for_bit(name: str) -> None:
    paradigm = build(name)
    shake(paradigm)
    _, condition = batch(paradigm)
    calls = []
    handle = paradigm.backbone.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    with torch.no_grad():
        paradigm.sample(condition, steps=None, guidance=1.0, temperature=1.0, generator=torch.Generator().manual_seed(0))
    handle.remove()
    assert set(calls) == {len(condition)}


@pytest.mark.parametrize("name", ["masked-token", "next-token", "mar-discrete", "block-diffusion", "next-scale"])
def test_cross_entropy_starts_at_ln_v(name: str) -> None:
    paradigm = build(name)
    tokens, condition = batch(paradigm, 64)
    assert float(paradigm.loss(tokens, condition)[0].mean().detach()) == pytest.approx(math.log(CODES.vocabulary), rel=0.02)


def test_diffusion_starts_at_the_variance_of_the_velocity() -> None:
    """The head starts at zero, so the loss is E (noise - x)^2 = 2 for unit latents."""
    paradigm = build("diffusion")
    tokens = torch.randn(512, LATENTS.num_tokens, LATENTS.channels)
    words = torch.ones(512, CONDITIONS.num_tokens, dtype=torch.long)
    assert float(paradigm.loss(tokens, Condition.of(words))[0].mean().detach()) == pytest.approx(2.0, rel=0.03)


def test_mar_starts_at_the_variance_of_the_noise() -> None:
    paradigm = build("mar")
    tokens, condition = batch(paradigm, 128)
    assert float(paradigm.loss(tokens, condition)[0].mean().detach()) == pytest.approx(1.0, rel=0.05)


def test_masked_token_weights_images_or_tokens() -> None:
    """With zero logits every hidden token costs ln V: an image costs ln V, or ln V times its hidden tokens over their mean."""
    tokens, condition = batch(build("masked-token"), 4000)
    losses = {}
    for weight in ("image", "token"):
        paradigm = build("masked-token", weight=weight)
        with torch.no_grad():
            paradigm.head.logits.weight.zero_()
            paradigm.head.logits.bias.zero_()
            torch.manual_seed(0)
            losses[weight] = paradigm.loss(tokens, condition)[0]
    torch.testing.assert_close(losses["image"], torch.full((4000,), math.log(CODES.vocabulary)))
    num_hidden = losses["token"] / math.log(CODES.vocabulary) * paradigm.mean_hidden
    torch.testing.assert_close(num_hidden, num_hidden.round(), rtol=0, atol=1e-3)
    assert (int(num_hidden.min().round()), int(num_hidden.max().round())) == (1, CODES.num_tokens)
    assert float(losses["token"].mean()) == pytest.approx(math.log(CODES.vocabulary), rel=0.02)
    assert paradigm.mean_hidden == pytest.approx(2 / math.pi * CODES.num_tokens + 0.5, rel=0.01)  # rounded up


def test_masked_token_ignores_the_targets_of_visible_tokens() -> None:
    """The loss equals the cross-entropy over the tokens that its own input hides."""
    paradigm = build("masked-token")
    shake(paradigm)
    tokens, condition = batch(paradigm)
    seen: list[torch.Tensor] = []
    original = paradigm.contexts

    def spy(inputs, condition):
        seen.append(inputs)
        return original(inputs, condition)

    paradigm.contexts = spy
    torch.manual_seed(7)
    loss = paradigm.loss(tokens, condition)[0]
    hidden = seen[0] == paradigm.mask_id
    assert torch.equal(seen[0][~hidden], tokens[~hidden])
    log = paradigm.head.logits(original(seen[0], condition)).log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    torch.testing.assert_close(loss, -(log * hidden).sum(1) / hidden.sum(1))


@pytest.mark.parametrize(
    ("law", "mean"),
    [("cosine", lambda u: np.cos(np.pi / 2 * u)), ("arccos", lambda u: 2 / np.pi * np.arccos(u)), ("uniform", lambda u: u)],
)
def test_masked_token_mask_laws(law: str, mean) -> None:
    """E of the hidden share is the mean of ceil(N share(u)) / N over uniform u."""
    paradigm = build("masked-token", mask_law=law)
    shares = []
    original = paradigm.contexts

    def spy(inputs, condition):
        shares.append((inputs == paradigm.mask_id).float().mean(1))
        return original(inputs, condition)

    paradigm.contexts = spy
    tokens, condition = batch(paradigm, 2000)
    paradigm.loss(tokens, condition)
    n = CODES.num_tokens
    expected = np.ceil(mean((np.arange(100_000) + 0.5) / 100_000) * n).mean() / n
    assert float(shares[0].mean()) == pytest.approx(float(expected), abs=0.02)


CAUSAL = ["next-token", "next-token-continuous", "next-token-energy"]


@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("name", CAUSAL)
def test_causal_prediction_ignores_the_future(name: str, order: str) -> None:
    """Row i knows the tokens that come before it in the order, and no others."""
    paradigm = build(name, order=order)
    shake(paradigm)
    tokens, condition = batch(paradigm)
    orders = paradigm.draw_orders(4)
    before = paradigm.contexts(tokens, orders, condition)
    changed = put(tokens, orders[:, 9:], take(tokens, orders[:, 9:]).flip(0))
    after = paradigm.contexts(changed, orders, condition)
    torch.testing.assert_close(after[:, :10], before[:, :10], rtol=0, atol=1e-6)
    assert (after[:, 10:] - before[:, 10:]).abs().amax() > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("name", CAUSAL)
def test_cached_contexts_equal_the_uncached_ones(name: str, order: str, guidance: float) -> None:
    """What the head sees at each step of the sampler, with and without the cache, guidance in one batch, to 1e-5."""
    paradigm = build(name, order=order).eval()
    shake(paradigm)
    _, condition = batch(paradigm)
    seen: list[torch.Tensor] = []
    original = paradigm.head.sample
    paradigm.head.sample = lambda out, **settings: seen.append(out) or original(out, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        tokens = paradigm.sample(condition, steps=None, guidance=guidance, temperature=1.0, generator=generator)
        guide = Guidance(condition, guidance)
        orders = paradigm.draw_orders(4, torch.Generator().manual_seed(0))
        slow = paradigm.contexts(guide.double(tokens), guide.double(orders), guide.condition)
    torch.testing.assert_close(torch.stack(seen, dim=1), slow, rtol=1e-5, atol=1e-5)


def test_random_order_needs_the_place_of_the_target() -> None:
    """With two orders that differ in the place to be predicted only, the outputs at that step differ."""
    paradigm = build("next-token", order="random")
    shake(paradigm)
    tokens, condition = batch(paradigm)
    orders = paradigm.draw_orders(4)
    swapped = torch.cat([orders[:, :5], orders[:, [6, 5]], orders[:, 7:]], dim=1)
    before, after = paradigm.contexts(tokens, orders, condition), paradigm.contexts(tokens, swapped, condition)
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=1e-6)
    assert (after[:, 5] - before[:, 5]).abs().amax() > 1e-3


def test_mar_encoder_sees_kept_tokens_only() -> None:
    paradigm = build("mar")
    shake(paradigm)
    tokens, condition = batch(paradigm)
    places = torch.arange(5).expand(4, 5)
    out = paradigm.contexts(tokens[:, :5], places, condition)
    assert out.shape == (4, LATENTS.num_tokens, BACKBONE.width)
    lengths = []
    handles = [b.register_forward_pre_hook(lambda _, x: lengths.append(x[0].shape[1])) for b in paradigm.backbone.blocks]
    paradigm.contexts(tokens[:, :5], places, condition)
    for handle in handles:
        handle.remove()
    assert lengths == [CONDITIONS.num_tokens + 5, CONDITIONS.num_tokens + LATENTS.num_tokens]


def test_mar_order_of_kept_tokens_does_not_matter() -> None:
    paradigm = build("mar")
    shake(paradigm)
    tokens, condition = batch(paradigm)
    places = torch.tensor([[3, 8, 1, 12]]).expand(4, 4)
    kept = tokens.gather(1, places[..., None].expand(-1, -1, LATENTS.channels))
    flipped = paradigm.contexts(kept.flip(1), places.flip(1), condition)
    torch.testing.assert_close(flipped, paradigm.contexts(kept, places, condition), rtol=1e-4, atol=1e-4)


def test_mar_mask_law() -> None:
    """The MAR code's truncated Gaussian at 256 tokens: mean ratio .8670, standard deviation .0835, never below 0.7."""
    space = type(LATENTS)(kind="latents", grid=16, channels=4)
    torch.manual_seed(0)
    paradigm = load("mar")(BACKBONE, space, CONDITIONS, **OPTIONS["mar"])
    drawn = torch.tensor([paradigm.draw_num_hidden() for _ in range(20_000)]) / 256
    assert float(drawn.mean()) == pytest.approx(0.867 + 0.5 / 256, abs=0.002)
    assert float(drawn.std()) == pytest.approx(0.0835, abs=0.002)
    assert float(drawn.min()) >= 0.7


@pytest.mark.parametrize("steps", [1, 16, 64, 256])
def test_cosine_schedule_reveals_every_token_once(steps: int) -> None:
    remaining = [256, *cosine_schedule(256, steps)]
    assert remaining[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(remaining))
    assert len(remaining) == steps + 1


def test_cosine_schedule_matches_the_published_one() -> None:
    """16 steps of 256 tokens reveal 2, 3, 7, 8, 11, .., 25, 24, 25; 64 steps begin with 13 single tokens, at most 7 later."""
    revealed = [a - b for a, b in zip([256, *cosine_schedule(256, 16)], cosine_schedule(256, 16), strict=False)]
    assert revealed[:5] == [2, 3, 7, 8, 11]
    assert revealed[-3:] == [25, 24, 25]
    steps = [a - b for a, b in zip([256, *cosine_schedule(256, 64)], cosine_schedule(256, 64), strict=False)]
    assert steps[:13] == [1] * 13
    assert max(steps) == 7
    assert cosine_schedule(256, 256) == list(range(255, -1, -1))


@pytest.mark.parametrize("steps", [0, 257])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="1 to 256"):
        cosine_schedule(256, steps)


@pytest.mark.parametrize("name", sorted(BUILT_INS))
def test_bad_sampler_settings_are_refused(name: str) -> None:
    paradigm = build(name)
    _, condition = batch(paradigm)
    for settings in ({"steps": 0, "temperature": 1.0}, {"steps": None, "temperature": 0.0}):
        with pytest.raises(ValueError, match=r"steps|temperature"):
            paradigm.sample(condition, guidance=1.0, generator=torch.Generator(), **settings)


@pytest.mark.parametrize("name", sorted(BUILT_INS))
def test_the_wrong_token_space_is_refused(name: str) -> None:
    cls = load(name)
    with pytest.raises(ValueError, match="reads"):
        cls(BACKBONE, CODES if cls.reads == "latents" else LATENTS, CONDITIONS)


def test_training_noise_schedule() -> None:
    abar = signal_share("cosine")
    assert float(abar[0]) == pytest.approx(0.99996, abs=1e-5)
    assert float(abar[499]) == pytest.approx(0.494, abs=1e-3)
    assert float(abar[999]) == pytest.approx(2.4e-9, rel=0.02)
    assert respaced_steps(100)[:2] == [0, 10]
    assert respaced_steps(100)[-2:] == [989, 999]


def test_diffusion_loss_samples_a_gaussian_exactly_with_the_optimal_predictor() -> None:
    """With the exact noise predictor of N(m, s^2) the respaced ancestral sampler returns that Gaussian."""
    torch.manual_seed(0)
    head = DiffusionLoss(TokenSpace(kind="latents", grid=1, channels=1), 4, width=8, depth=1, steps=200)
    mean, std = 1.5, 0.4

    def optimal(x, t, condition):
        abar = head.diffusion.abar[t][:, None]
        return (1 - abar).sqrt() * (x - abar.sqrt() * mean) / (abar * std**2 + 1 - abar)

    head.predict = optimal
    drawn = head.sample(torch.zeros(20_000, 4), temperature=1.0, guidance=1.0, generator=torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
    assert float(drawn.std()) == pytest.approx(std, rel=0.05)


def test_euler_sampling_of_a_gaussian_with_the_optimal_velocity() -> None:
    paradigm = build("diffusion", time_shift=2.0)
    mean, std = 0.7, 0.5

    def optimal(x, t, condition):
        t = t[:, None, None]
        variance = (1 - t) ** 2 * std**2 + t**2
        posterior = mean + (1 - t) * std**2 / variance * (x - (1 - t) * mean)
        noise = t / variance * (x - (1 - t) * mean)
        return noise - posterior

    paradigm.predict = optimal
    _, condition = batch(paradigm, 256)
    drawn = paradigm.sample(condition, steps=200, guidance=1.0, temperature=1.0, generator=torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
    assert float(drawn.std()) == pytest.approx(std, rel=0.03)
