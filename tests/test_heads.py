"""What each head and its sampler must give, computed from definitions: known mixtures, variances, densities and frequencies."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from spaces import CODES, CONDITIONS, LATENTS
from torch import Tensor

import paradigms.mar
from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.paradigm import TokenSpace
from bench.registry import load
from bench.testing import paradigm_checks, shake
from paradigms.diffusion_loss import DiffusionLoss
from paradigms.gaussian_diffusion import GaussianDiffusion, respaced_steps, signal_share
from paradigms.heads import CrossEntropy, GaussianMixture, TokenHead, make_head
from paradigms.sampling import draw

ONE = TokenSpace(kind="latents", grid=1, channels=1)
BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
TARGETS = {0: ((0.3, -1.5, 0.2), (0.7, 0.7, 0.4)), 1: ((1.0, 0.5, 0.3),)}
"""Condition to (weight, mean, standard deviation) of its mixture's components."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def truth(condition: int, num: int, seed: int) -> Tensor:
    """Exact draws (num,) from a condition's mixture."""
    weights, means, stds = torch.tensor(TARGETS[condition]).T
    component = torch.multinomial(weights, num, replacement=True, generator=generator(seed))
    return means[component] + stds[component] * torch.randn(num, generator=generator(seed + 1))


def train(head: TokenHead, steps: int) -> None:
    """Adam on fresh draws of both conditions."""
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for step in range(steps):
        torch.manual_seed(step)
        target = torch.cat([truth(0, 256, 2 * step), truth(1, 256, 2 * step)])[:, None]
        condition = torch.eye(2).repeat_interleave(256, 0)
        optimizer.zero_grad()
        head.loss(condition, target).mean().backward()
        optimizer.step()
        schedule.step()


def distances(head: TokenHead, num: int = 4000) -> list[tuple[float, float]]:
    """Per condition: Wasserstein distance of the head's draws from exact ones, and of exact ones from each other."""
    found = []
    for condition in TARGETS:
        rows = torch.eye(2)[condition].expand(num, 2)
        with torch.no_grad():
            drawn = head.sample(rows, temperature=1.0, guidance=1.0, generator=generator())[:, 0].numpy()
        exact = truth(condition, num, 10_000).numpy()
        best = np.mean([wasserstein_distance(exact, truth(condition, num, 20_000 + i).numpy()) for i in range(10)])
        found.append((wasserstein_distance(drawn, exact), float(best)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("prediction", "clip"), [("noise", 4.0), ("velocity", None)])
def test_diffusion_loss_learns_a_conditional_mixture(prediction: str, clip: float | None) -> None:
    """Weights, means and deviations of the bimodal condition within .05; Wasserstein distance near the best achievable.

    So small a network predicting noise needs the limit on its clean estimate: without it, the first steps' errors are
    multiplied by up to 20,000 and the distance is 15.
    """
    torch.manual_seed(0)
    head = DiffusionLoss(
        ONE, 2, width=64, depth=2, time_features=64, multiplier=2, prediction=prediction, clip=clip, condition_at_input=True
    )
    train(head, 1500)
    ancestral = []
    for distance, best in distances(head):
        assert distance < best + 0.05, f"{distance:.3f} against {best:.3f} for exact draws"
        ancestral.append(distance)
    head.sampler, head.steps = "probability-flow", 15
    for (distance, best), reached in zip(distances(head), ancestral, strict=True):
        assert distance < max(best, reached) + 0.01, f"{distance:.3f} with 15 steps, {reached:.3f} with 100 ancestral ones"
    head.sampler, head.steps = "ancestral", 100
    with torch.no_grad():
        drawn = head.sample(torch.eye(2)[0].expand(8000, 2), temperature=1.0, guidance=1.0, generator=generator())[:, 0]
    left, right = drawn[drawn < -0.6], drawn[drawn >= -0.6]
    for part, (weight, mean, std) in zip((left, right), TARGETS[0], strict=True):
        assert len(part) / len(drawn) == pytest.approx(weight, abs=0.05)
        assert float(part.mean()) == pytest.approx(mean, abs=0.05)
        assert float(part.std()) == pytest.approx(std, abs=0.05)


def test_gaussian_mixture_learns_a_conditional_mixture() -> None:
    torch.manual_seed(0)
    head = GaussianMixture(ONE, 2, components=4)
    train(head, 600)
    for distance, best in distances(head):
        assert distance < best + 0.05, f"{distance:.3f} against {best:.3f} for exact draws"


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_temperature_shrinks_the_variance_as_the_recursion_says(temperature: float) -> None:
    """For N(0, s^2) and the exact predictor every step is linear: v <- a^2 v + (temperature sigma)^2, in float64 here."""
    std, steps = 0.8, 250
    diffusion = GaussianDiffusion()

    def predict(x: Tensor, t: Tensor) -> Tensor:
        abar = diffusion.abar[t][:, None]
        return (1 - abar).sqrt() * x / (abar * std**2 + 1 - abar)

    drawn = diffusion.sample(predict, (50_000, 1), steps=steps, temperature=temperature, generator=generator())
    law, kept, variance = signal_share("cosine").numpy(), respaced_steps(steps), 1.0
    for index in reversed(range(steps)):
        abar, before = law[kept[index]], law[kept[index - 1]] if index else 1.0
        beta = 1 - abar / before
        clean = np.sqrt(abar) * std**2 / (abar * std**2 + 1 - abar)  # E[x0 | x] = clean x
        slope = (np.sqrt(before) * beta * clean + np.sqrt(1 - beta) * (1 - before)) / (1 - abar)
        variance = slope**2 * variance + (temperature**2 * beta * (1 - before) / (1 - abar) if index else 0.0)
    assert float(drawn.var()) == pytest.approx(float(variance), rel=0.03)
    if temperature == 1.0:
        assert variance == pytest.approx(std**2, rel=0.05)
    else:
        assert variance < 0.75 * std**2


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_learned_variance_adds_the_kl_of_the_posterior(schedule: str) -> None:
    """With the true noise and a given interpolation the bound is the KL of two Gaussians of equal mean, from its definition."""
    diffusion = GaussianDiffusion(schedule=schedule, learned_variance=True)
    rest = 0.3
    clean, seen = torch.full((4000, 1), 0.25), []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        abar = diffusion.abar[t][:, None]
        seen.append(t)
        noise = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        return torch.cat([noise, torch.full_like(noise, rest)], dim=1)

    torch.manual_seed(0)
    loss = diffusion.loss(predict, clean)
    law = signal_share(schedule)
    expected = []
    for t in seen[0].tolist():
        if t == 0:
            expected.append(math.nan)
            continue
        beta = 1 - law[t] / law[t - 1]
        posterior = beta * (1 - law[t - 1]) / (1 - law[t])
        model = (((rest + 1) / 2) * beta.log() + (1 - (rest + 1) / 2) * posterior.log()).exp()
        zero = torch.zeros((), dtype=torch.float64)
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(zero, posterior.sqrt()), torch.distributions.Normal(zero, model.sqrt())
        )
        expected.append(float(kl) / math.log(2))
    reference = torch.tensor(expected)
    inner = ~reference.isnan()
    assert inner.sum() > 3900
    torch.testing.assert_close(loss[inner], reference[inner].float(), rtol=2e-2, atol=2e-3)
    assert (loss[~inner] > 0).all()


def test_learned_variance_does_not_move_the_mean() -> None:
    """The bound's gradient reaches the variance only (Nichol & Dhariwal 2021, section 3.1)."""
    diffusion = GaussianDiffusion(learned_variance=True)
    clean = torch.randn(64, 3, generator=generator())
    mean, rest = torch.zeros(64, 3, requires_grad=True), torch.zeros(64, 3, requires_grad=True)
    torch.manual_seed(0)
    diffusion.loss(lambda x, t: torch.cat([mean, rest], dim=1), clean).sum().backward()
    plain = torch.zeros(64, 3, requires_grad=True)
    torch.manual_seed(0)
    GaussianDiffusion().loss(lambda x, t: plain, clean).sum().backward()
    torch.testing.assert_close(mean.grad, plain.grad)
    assert rest.grad is not None
    assert rest.grad.abs().sum() > 0


def optimal_noise(mean: float, std: float, diffusion: GaussianDiffusion) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact noise predictor of N(mean, std^2), with the variance's lower bound beside it when it is learned."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        abar = diffusion.abar[t].view(-1, *[1] * (x.ndim - 1))
        noise = (1 - abar).sqrt() * (x - abar.sqrt() * mean) / (abar * std**2 + 1 - abar)
        return torch.cat([noise, -torch.ones_like(noise)], dim=-1) if diffusion.learned_variance else noise

    return predict


@pytest.mark.parametrize("learned_variance", [False, True])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_ancestral_sampling_returns_the_gaussian(schedule: str, learned_variance: bool) -> None:
    diffusion = GaussianDiffusion(schedule=schedule, learned_variance=learned_variance)
    predict = optimal_noise(0.7, 0.5, diffusion)
    drawn = diffusion.sample(predict, (10_000, 2), steps=250, temperature=1.0, generator=generator())
    assert float(drawn.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.03)


def test_mixture_density_is_that_of_torch() -> None:
    torch.manual_seed(0)
    head = GaussianMixture(LATENTS, 6, components=3)
    condition, target = torch.randn(5, 6), torch.randn(5, LATENTS.channels)
    weights, means, stds = head.mixture(condition)
    components = torch.distributions.Independent(torch.distributions.Normal(means, stds), 1)
    reference = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=weights), components)
    torch.testing.assert_close(head.loss(condition, target), -reference.log_prob(target) / LATENTS.channels)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0])
def test_mixture_guidance_samples_the_tilted_density(scale: float) -> None:
    """For N(1, 1) and hidden N(0, 1) the density p_c^s p_h^(1-s) is N(s, 1)."""
    head = GaussianMixture(ONE, 1, components=1, candidates=256)
    head.mixture = lambda condition: (torch.zeros(len(condition), 1), condition[:, :, None], torch.ones(len(condition), 1, 1))
    rows = torch.cat([torch.ones(4000, 1), torch.zeros(4000, 1)])[: 4000 if scale == 1.0 else 8000]
    drawn = head.sample(rows, temperature=1.0, guidance=scale, generator=generator())
    assert float(drawn.mean()) == pytest.approx(scale, abs=0.06)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.06)


PROBABILITIES = torch.tensor([0.5, 0.3, 0.15, 0.05])


@pytest.mark.parametrize(
    ("settings", "temperature", "expected"),
    [
        ({}, 1.0, [0.5, 0.3, 0.15, 0.05]),
        ({}, 0.5, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        ({"top_k": 2}, 1.0, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.7}, 1.0, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.81}, 1.0, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"top_p": 0.01}, 1.0, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, 1.0, [0.625, 0.375, 0, 0]),
    ],
)
def test_codes_are_drawn_with_their_probabilities(settings: dict, temperature: float, expected: list[float]) -> None:
    codes = draw(PROBABILITIES.log().expand(40_000, 4), temperature, generator(), **settings)
    shares = torch.bincount(codes, minlength=4) / len(codes)
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0.01)
    assert (shares[torch.tensor(expected) == 0] == 0).all()


def test_label_smoothing_is_its_definition() -> None:
    torch.manual_seed(0)
    head = CrossEntropy(CODES, 8, label_smoothing=0.1)
    condition, target = torch.randn(16, 8), torch.randint(CODES.vocabulary, (16,))
    logs = head.logits(condition).log_softmax(1)
    expected = -0.9 * logs.gather(1, target[:, None])[:, 0] - 0.1 * logs.mean(1)
    torch.testing.assert_close(head.loss(condition, target), expected)


@pytest.mark.parametrize(
    ("name", "space", "options", "said"),
    [
        ("cross-entropy", LATENTS, {}, "reads codes, not latents; for latents use diffusion, squared-error, mixture, energy"),
        ("diffusion", CODES, {}, "reads latents, not codes; for codes use cross-entropy"),
        ("softmax", CODES, {}, "is unknown; for codes use cross-entropy"),
        ("cross-entropy", CODES, {"top_k": 0}, "top_k must be 1 to 64"),
        ("cross-entropy", CODES, {"top_p": 0.0}, "top_p must be above 0"),
        ("diffusion", LATENTS, {"steps": 1}, "2 to 1000"),
        ("diffusion", LATENTS, {"prediction": "score"}, "prediction must be 'noise' or 'velocity'"),
    ],
)
def test_impossible_heads_are_refused(name: str, space: TokenSpace, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_head(name, space, 8, options)


def build(name: str, **options):
    torch.manual_seed(0)
    cls = load(name)
    paradigm = cls(BACKBONE, LATENTS if cls.reads == "latents" else CODES, CONDITIONS, **options)
    shake(paradigm)
    return paradigm.eval()


def sample(paradigm, seed: int, **settings):
    words = torch.randint(1, CONDITIONS.vocabulary, (6, CONDITIONS.num_tokens), generator=generator(5))
    condition = Condition.of(words)
    settings = {"steps": None, "guidance": 1.0, "temperature": 1.0, **settings}
    with torch.no_grad():
        return paradigm.sample(condition, generator=generator(seed), **settings)


@pytest.mark.parametrize("name", ["mar", "next-token-continuous"])
@pytest.mark.parametrize(("head", "diverse"), [("squared-error", False), ("mixture", True)])
def test_the_squared_error_gives_one_image_per_order(
    name: str, head: str, diverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = torch.randperm(LATENTS.num_tokens, generator=generator(3))
    monkeypatch.setattr(paradigms.mar, "random_orders", lambda batch, *_: fixed.expand(batch, -1))
    paradigm = build(name, head=head)
    assert torch.equal(sample(paradigm, 0), sample(paradigm, 1)) is not diverse


DIFFUSION_HEAD = {"head_options": {"width": 32, "depth": 2, "steps": 5, "time_features": 32, "clip": 4.0}}
ENERGY_HEAD = {"head_options": {"width": 32, "depth": 2, "noise_channels": 16, "spread": 0.99}}
VARIANTS = [
    ("diffusion", {"sampler": "heun"}),
    ("diffusion", {"objective": "ddpm"}),
    ("diffusion", {"objective": "ddpm", "sampler": "probability-flow", "learned_variance": True}),
    ("diffusion", {"objective": "ddpm", "schedule": "linear", "learned_variance": True}),
    ("diffusion", {"guidance_interval": [0.2, 0.8]}),
    ("masked-token", {"mask_law": "arccos", "order": "random", "label_smoothing": 0.1}),
    ("masked-token", {"mask_law": "uniform"}),
    ("masked-token", {"weight": "elbo", "order": "random", "schedule": "linear"}),
    ("block-diffusion", {"block": 1}),
    ("block-diffusion", {"block": 9}),
    ("next-token", {"head_options": {"top_k": 8, "top_p": 0.9}}),
    ("next-token", {"order": "random"}),
    ("next-token-continuous", {"order": "random", **DIFFUSION_HEAD}),
    ("next-token-continuous", {"head": "mixture"}),
    ("next-token-continuous", {"head": "squared-error", "order": "random"}),
    ("mar", {"head": "mixture", "mask_law": "uniform"}),
    ("mar", {"head": "squared-error"}),
    ("mar", {"head": "energy", **ENERGY_HEAD}),
    ("next-token-continuous", {"head": "energy", "order": "random", **ENERGY_HEAD}),
    ("mar", {"num_buffer_slots": 5, "guidance_schedule": "constant", **DIFFUSION_HEAD}),
    ("mar", {"head_options": {**DIFFUSION_HEAD["head_options"], "sampler": "probability-flow"}}),
    ("mar", {"head_options": {**DIFFUSION_HEAD["head_options"], "learned_variance": True, "condition_at_input": True}}),
    ("mar-discrete", {"mask_law": "uniform"}),
]


CHECKS = dict(paradigm_checks())
CHEAP = ("loss-values", "loss-division", "training-cost", "samples")
"""What every change runs of the variants; `make slow` runs the rest. The built-ins' defaults are checked in test_paradigms.py."""


@pytest.mark.parametrize(
    ("name", "options", "check"),
    [
        pytest.param(
            *(name, options, check),
            id=f"{name}-{','.join(options)}-{check}",
            marks=[] if check in CHEAP else [pytest.mark.slow],
        )
        for name, options in VARIANTS
        for check in CHECKS
        if check not in ("declaration", "backbone", "harness")  # of the class, which test_paradigms.py checks
    ],
)
def test_every_variant_conforms(name: str, options: dict, check: str) -> None:
    """An order decides what a loss may see, so it learns and samples every time; the rest do in `make slow`."""
    assert CHECKS[check](load(name), **options) == []


@pytest.mark.parametrize("name", ["masked-token", "mar", "mar-discrete"])
def test_any_number_of_steps_up_to_one_per_token(name: str) -> None:
    paradigm = build(name, **(DIFFUSION_HEAD if name == "mar" else {}))
    for steps in (1, 5, CODES.num_tokens):
        assert len(sample(paradigm, 0, steps=steps)) == 6
    with pytest.raises(ValueError, match="steps must be 1 to 16, not 17"):
        sample(paradigm, 0, steps=17)


def test_mar_uniform_mask_law() -> None:
    """ceil(N r) for r uniform in 0.7..1."""
    space = TokenSpace(kind="codes", grid=16, vocabulary=8)
    torch.manual_seed(0)
    paradigm = load("mar-discrete")(BACKBONE, space, CONDITIONS, mask_law="uniform")
    drawn = torch.tensor([paradigm.draw_num_hidden() for _ in range(20_000)]) / 256
    assert float(drawn.mean()) == pytest.approx(0.85 + 0.5 / 256, abs=0.003)
    assert float(drawn.std()) == pytest.approx(0.3 / math.sqrt(12), rel=0.03)


def analytic_flow_loss(std: float) -> float:
    """E over logit-normal t of Var(noise - x | x_t) = s^2 / ((1 - t)^2 s^2 + t^2)."""
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    t = torch.sigmoid(quantiles)
    return float((std**2 / ((1 - t) ** 2 * std**2 + t**2)).mean())


@pytest.mark.slow
def test_flow_matching_reaches_the_analytic_loss() -> None:
    """A tiny network trained on independent N(0, s^2) latents ends within 3 % of the least possible loss, and above it."""
    std = 0.5
    torch.manual_seed(0)
    paradigm = load("diffusion")(BACKBONE, LATENTS, CONDITIONS)
    optimizer = torch.optim.Adam(paradigm.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 500)
    condition = Condition.of(torch.ones(64, CONDITIONS.num_tokens, dtype=torch.long))
    for step in range(500):
        torch.manual_seed(step)
        loss = paradigm.loss(std * torch.randn(64, LATENTS.num_tokens, LATENTS.channels), condition)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.manual_seed(1_000)
    with torch.no_grad():
        tests = [
            paradigm.loss(std * torch.randn(64, LATENTS.num_tokens, LATENTS.channels), condition)[0].mean() for _ in range(60)
        ]
    assert float(torch.stack(tests).mean()) == pytest.approx(analytic_flow_loss(std), rel=0.03)


def test_a_perfect_velocity_has_the_least_loss() -> None:
    paradigm = build("diffusion")
    std = 0.5

    def optimal(x, t, condition):
        t = t[:, None, None]
        return (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2) * x

    paradigm.predict = optimal
    condition = Condition.of(torch.ones(4000, CONDITIONS.num_tokens, dtype=torch.long))
    torch.manual_seed(0)
    loss = paradigm.loss(std * torch.randn(4000, LATENTS.num_tokens, LATENTS.channels), condition)[0].mean()
    assert float(loss.detach()) == pytest.approx(analytic_flow_loss(std), rel=0.02)


def test_a_perfect_predictor_has_no_loss() -> None:
    """Zero for noise that is known, and for codes that are certain."""
    diffusion, clean = GaussianDiffusion(), torch.randn(64, 3, generator=generator())

    def known(x: Tensor, t: Tensor) -> Tensor:
        abar = diffusion.abar.double()[t][:, None]
        return ((x - abar.sqrt() * clean) / (1 - abar).sqrt()).float()

    torch.manual_seed(0)
    assert float(diffusion.loss(known, clean).max()) < 1e-4
    head = CrossEntropy(CODES, 8)
    with torch.no_grad():
        head.logits.weight.zero_()
        head.logits.bias.copy_(100.0 * (torch.arange(CODES.vocabulary) == 7))
    assert float(head.loss(torch.zeros(16, 8), torch.full((16,), 7)).detach().max()) < 1e-6


def test_heun_is_of_second_order() -> None:
    """For the exact velocity of a Gaussian the error of the end's spread falls about 4 x when steps double, Euler's about 2 x."""
    std, errors = 0.5, {}

    def optimal(x, t, condition):
        t = t[:, None, None]
        return (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2) * x

    for sampler, steps in itertools.product(("euler", "heun"), (20, 40)):
        paradigm = build("diffusion", sampler=sampler)
        paradigm.predict = optimal
        start = torch.randn(6, LATENTS.num_tokens, LATENTS.channels, generator=generator(0))
        errors[sampler, steps] = float(((sample(paradigm, 0, steps=steps) / start).mean() - std).abs())
    assert errors["euler", 20] / errors["euler", 40] == pytest.approx(2, rel=0.2)
    assert errors["heun", 20] / errors["heun", 40] > 3
    assert errors["heun", 20] < errors["euler", 20] / 5


def test_guidance_runs_inside_its_interval_only() -> None:
    """Ten Euler steps at t = 1, .9, .. .1: both branches run at .3 to .7."""
    paradigm = build("diffusion", guidance_interval=[0.25, 0.75])
    sizes: list[int] = []
    hook = paradigm.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    sample(paradigm, 0, steps=10, guidance=2.0)
    hook.remove()
    assert sizes == [6, 6, 6, 12, 12, 12, 12, 12, 6, 6]


def test_mar_grows_its_guidance_with_the_revealed_share() -> None:
    """1 + (s - 1) revealed / N after each step, constant s otherwise."""
    for schedule in ("linear", "constant"):
        paradigm = build("mar-discrete", guidance_schedule=schedule)
        scales: list[float] = []
        original = paradigm.head.sample
        paradigm.head.sample = lambda out, guidance, **rest: scales.append(guidance) or original(out, guidance=guidance, **rest)
        sample(paradigm, 0, steps=CODES.num_tokens, guidance=3.0)
        expected = [1 + 2 * (k + 1) / 16 if schedule == "linear" else 3.0 for k in range(16)]
        assert scales == pytest.approx(expected)
