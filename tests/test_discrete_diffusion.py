"""Bounds of discrete diffusion against what they must be: MDLM's, uniform diffusion's and block diffusion's."""

import itertools
import math

import pytest
import torch
from spaces import CODES, CONDITIONS
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, Guidance
from bench.paradigm import Paradigm, TokenSpace
from bench.registry import load
from bench.testing import example_batch, shake
from paradigms.orders import linear_schedule
from paradigms.uniform_diffusion import UniformDiffusion

BACKBONE = BackboneConfig(width=16, depth=2, num_heads=2)
SIZES = (1, 4, 16)
"""Tokens of a block."""


def build(name: str, space: TokenSpace = CODES, **options) -> Paradigm:
    torch.manual_seed(0)
    return load(name)(BACKBONE, space, CONDITIONS, **options).eval()


def shaken(name: str, space: TokenSpace = CODES, **options) -> Paradigm:
    paradigm = build(name, space, **options)
    shake(paradigm)
    return paradigm


def batch(size: int = 4, space: TokenSpace = CODES) -> tuple[Tensor, Condition]:
    words = torch.randint(1, 14, (size, CONDITIONS.num_tokens), generator=torch.Generator().manual_seed(1))
    return example_batch(space, size)[0], Condition.of(words)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- MDLM


@torch.no_grad()
def test_the_elbo_is_the_bound_per_token() -> None:
    paradigm, (tokens, condition) = shaken("masked-token", weight="elbo"), batch(64)
    torch.manual_seed(3)
    loss = paradigm.loss(tokens, condition)[0]
    torch.manual_seed(3)
    torch.testing.assert_close(loss * CODES.num_tokens, paradigm.negative_log_likelihood(tokens, condition))
    assert paradigm.loss_unit == "nats per token, upper bound"
    for parameter in paradigm.head.parameters():
        parameter.zero_()
    torch.testing.assert_close(paradigm.loss(tokens, condition)[0], torch.full((64,), math.log(CODES.vocabulary)))


@torch.no_grad()
def test_the_elbo_is_the_mean_over_both_orders_of_two_tokens() -> None:
    """By the chain rule: half of -log p(x1) - log p(x2 | x1) and half of the other order (Hoogeboom et al. 2022).

    The network has four places; the last two hold a code that is always seen.
    """
    space = TokenSpace(kind="codes", grid=2, vocabulary=3)
    paradigm = shaken("masked-token", space, weight="elbo")
    paradigm.head.logits.weight *= 10

    def contexts(tokens: Tensor, condition: Condition, original=paradigm.contexts) -> Tensor:
        padded = torch.cat([tokens, torch.zeros_like(tokens)], dim=1)
        return original(padded, condition)[:, :2]

    paradigm.contexts = contexts
    tokens = torch.tensor([[2, 1]])
    _, condition = batch(1, space)

    def logs(*seen: int) -> Tensor:
        """Log-probabilities of the true tokens (2,) where those in `seen` are shown."""
        inputs = torch.tensor([[int(tokens[0, i]) if i in seen else paradigm.mask_id for i in range(2)]])
        return paradigm.head.logits(contexts(inputs, condition)).log_softmax(2)[0].gather(1, tokens[0][:, None])[:, 0]

    exact = -(logs()[0] + logs(0)[1] + logs()[1] + logs(1)[0]) / 2
    draws = 20_000
    torch.manual_seed(0)
    many = Condition.of(condition.tokens.expand(draws, -1))
    nats = paradigm.bound(tokens.expand(draws, -1), many, paradigm.head.loss)
    assert float(nats.mean()) == pytest.approx(float(exact), abs=4 * float(nats.std()) / math.sqrt(draws))
    assert abs(float(logs()[0] + logs(0)[1] - logs()[1] - logs(1)[0])) > 0.1  # the two orders differ


def test_the_linear_schedule_reveals_equal_numbers() -> None:
    assert linear_schedule(16, 4) == [12, 8, 4, 0]
    assert linear_schedule(9, 4) == [6, 4, 2, 0]
    for num_tokens, steps in itertools.product((4, 9, 16), (1, 2, 3, 4)):
        remaining = [num_tokens, *linear_schedule(num_tokens, steps)]
        assert all(a > b for a, b in itertools.pairwise(remaining))
    with pytest.raises(ValueError, match="1 to 9"):
        linear_schedule(9, 10)
    paradigm, hidden = build("masked-token", order="random", schedule="linear"), []
    original = paradigm.contexts
    paradigm.contexts = lambda tokens, condition: (
        hidden.append((tokens == paradigm.mask_id).sum(1).tolist()) or original(tokens, condition)
    )
    paradigm.sample(batch()[1], steps=4, guidance=1.0, temperature=1.0, generator=generator())
    assert hidden == [[16] * 4, [12] * 4, [8] * 4, [4] * 4]


def test_the_elbo_has_its_own_law() -> None:
    with pytest.raises(ValueError, match="leave out mask_law"):
        build("masked-token", weight="elbo", mask_law="arccos")


# -- uniform diffusion


class Known(UniformDiffusion):
    """Predicts given probabilities (N, V), or with None the clean codes themselves."""

    def know(self, probabilities: Tensor | None) -> None:
        self.known: Tensor | None = probabilities
        self.clean: Tensor | None = None

    def logits(self, tokens: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if self.known is None:
            assert self.clean is not None
            return 200.0 * torch.nn.functional.one_hot(self.clean, self.space.vocabulary).double()
        return self.known.log().double().expand(*tokens.shape, -1)


def quadrature(paradigm: UniformDiffusion, code: int, points: int = 4000) -> float:
    """The bound of one code: the integral over t of the mean over all noisy codes, whose probabilities are known.

    Times are u^3, since the integrand grows like log(1 / t) near 0.
    """
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    t, vocabulary = u**3, paradigm.space.vocabulary
    tokens = torch.full((points, 1), code)
    total = torch.zeros(points, dtype=torch.float64)
    for noisy in range(vocabulary):
        share = t / vocabulary + (1 - t) * (noisy == code)
        condition = Condition.of(torch.ones(points, CONDITIONS.num_tokens, dtype=torch.int64))
        total += share * paradigm.density(tokens, torch.full((points, 1), noisy), t, condition)[:, 0]
    return float((total * 3 * u**2).mean())


def known(vocabulary: int, probabilities: Tensor | None) -> Known:
    paradigm = Known(BACKBONE, TokenSpace(kind="codes", grid=1, vocabulary=vocabulary), CONDITIONS)
    paradigm.know(probabilities)
    return paradigm


@pytest.mark.parametrize("vocabulary", [2, 8, 64])
@torch.no_grad()
def test_uniform_diffusion_of_a_uniform_predictor_is_ln_v(vocabulary: int) -> None:
    found = quadrature(known(vocabulary, torch.full((vocabulary,), 1 / vocabulary)), 1)
    assert found == pytest.approx(math.log(vocabulary), rel=1e-3)


@torch.no_grad()
def test_uniform_diffusion_of_a_known_law_is_its_log_probability() -> None:
    """For one token the law itself, at all times, makes the reverse process exact, so that the bound is tight for every code."""
    law = torch.tensor([0.6, 0.25, 0.1, 0.05])
    for code in range(4):
        assert quadrature(known(4, law), code) == pytest.approx(-math.log(law[code]), rel=2e-3)
    wrong = sum(float(law[code]) * quadrature(known(4, law.flip(0)), code) for code in range(4))
    entropy = float(-(law * law.log()).sum())
    assert wrong == pytest.approx(entropy + float((law * (law / law.flip(0)).log()).sum()), rel=2e-3)


@torch.no_grad()
def test_uniform_diffusion_of_an_oracle_is_zero() -> None:
    paradigm, (tokens, condition) = known(8, None), batch(50, TokenSpace(kind="codes", grid=1, vocabulary=8))
    paradigm.clean = tokens
    assert float(paradigm.loss(tokens, condition)[0].abs().max()) < 1e-9


@torch.no_grad()
def test_uniform_diffusion_draws_have_the_mean_of_the_quadrature() -> None:
    """The loss with its own times and noise, of a network that gives every code the same probability."""
    paradigm, draws = build("uniform-diffusion"), 3000
    for parameter in paradigm.head.parameters():
        parameter.zero_()
    tokens, condition = batch(draws)
    torch.manual_seed(0)
    loss = paradigm.loss(tokens, condition)[0]
    assert loss.min() >= 0
    error = float(loss.std() / math.sqrt(draws))
    assert error < 0.1
    assert float(loss.mean()) == pytest.approx(math.log(CODES.vocabulary), abs=4 * error)


@pytest.mark.parametrize("time", [1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6])
@torch.no_grad()
def test_single_precision_holds_at_both_ends_of_time(time: float) -> None:
    paradigm, (tokens, condition) = shaken("uniform-diffusion"), batch(64)
    noisy = torch.randint(CODES.vocabulary, tokens.shape, generator=generator())
    logits = paradigm.logits(noisy, torch.full((64,), time), condition)
    found = []
    for kind in (torch.float32, torch.float64):
        paradigm.logits = lambda *_, kind=kind: logits.to(kind)
        found.append(paradigm.density(tokens, noisy, torch.full((64,), time, dtype=kind), condition).double())
    torch.testing.assert_close(found[0], found[1], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@torch.no_grad()
def test_uniform_diffusion_samples_a_known_law_in_any_number_of_steps(steps: int, temperature: float) -> None:
    law = torch.tensor([0.6, 0.25, 0.1, 0.05])
    condition = Condition.of(torch.ones(20_000, CONDITIONS.num_tokens, dtype=torch.int64))
    settings = {"steps": steps, "guidance": 1.0, "temperature": temperature}
    drawn = known(4, law).sample(condition, **settings, generator=generator())
    shares = torch.bincount(drawn[:, 0], minlength=4) / len(drawn)
    sharpened = law ** (1 / temperature)
    torch.testing.assert_close(shares, sharpened / sharpened.sum(), rtol=0, atol=0.012)


# -- block diffusion


@pytest.mark.parametrize("block", SIZES)
@torch.no_grad()
def test_block_diffusion_of_a_uniform_predictor_is_ln_v(block: int) -> None:
    paradigm, (tokens, condition) = build("block-diffusion", block=block), batch(64)
    for parameter in paradigm.head.parameters():
        parameter.zero_()
    torch.testing.assert_close(paradigm.loss(tokens, condition)[0], torch.full((64,), math.log(CODES.vocabulary)))


@pytest.mark.parametrize("block", SIZES)
@torch.no_grad()
def test_a_noisy_block_sees_clean_tokens_of_earlier_blocks_alone(block: int) -> None:
    paradigm, (tokens, condition) = shaken("block-diffusion", block=block), batch()
    noisy = torch.where(torch.rand(tokens.shape, generator=generator()) < 0.5, paradigm.mask_id, tokens)
    before = paradigm.contexts(noisy, tokens, condition)
    for place in range(CODES.num_tokens):
        mine = slice(place // block * block, (place // block + 1) * block)
        for changes_clean in (True, False):
            inputs = [noisy.clone(), tokens.clone()]
            inputs[changes_clean][:, place] = (inputs[changes_clean][:, place] + 7) % CODES.vocabulary
            moved = (paradigm.contexts(*inputs, condition) - before).abs().amax((0, 2)) > 1e-6
            expected = torch.zeros(CODES.num_tokens, dtype=torch.bool)
            if changes_clean:
                expected[mine.stop :] = True
            else:
                expected[mine] = True
            assert torch.equal(moved, expected), (place, changes_clean)


@torch.no_grad()
def test_blocks_of_one_token_are_next_token_prediction() -> None:
    """The loss is the mean of -log p(x_i | x_<i), with each conditional from a pass of its own over the tokens before i."""
    paradigm, (tokens, condition) = shaken("block-diffusion", block=1), batch()
    exact = []
    for place in range(CODES.num_tokens):
        known_so_far = tokens.clone()
        known_so_far[:, place:] = 0
        hidden = torch.full_like(tokens, paradigm.mask_id)
        out = paradigm.contexts(hidden, known_so_far, condition)[:, place]
        exact.append(-paradigm.head.logits(out).log_softmax(1).gather(1, tokens[:, place : place + 1])[:, 0])
    for seed in range(3):  # whatever is drawn
        torch.manual_seed(seed)
        torch.testing.assert_close(paradigm.loss(tokens, condition)[0], torch.stack(exact).mean(0))


@torch.no_grad()
def test_likelihoods_of_blocks_of_one_token_sum_to_one() -> None:
    space = TokenSpace(kind="codes", grid=2, vocabulary=3)
    images = torch.tensor(list(itertools.product(range(3), repeat=4)))
    same = Condition.of(torch.ones(81, CONDITIONS.num_tokens, dtype=torch.int64))
    nats = shaken("block-diffusion", space, block=1).negative_log_likelihood(images, same)
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-5)
    assert float(nats.std()) > 0.1


@torch.no_grad()
def test_blocks_of_two_tokens_are_the_mean_over_both_orders_of_each() -> None:
    """Each of the three masks of a block enters with its probability and weight; the bounds leave a total below 1."""
    space = TokenSpace(kind="codes", grid=2, vocabulary=3)
    paradigm = shaken("block-diffusion", space, block=2)
    images = torch.tensor(list(itertools.product(range(3), repeat=4)))
    same = Condition.of(torch.ones(81, CONDITIONS.num_tokens, dtype=torch.int64))
    exact = torch.zeros(81)
    for mask in ((True, True), (True, False), (False, True)):
        hidden = torch.tensor(mask * 2)
        out = paradigm.contexts(torch.where(hidden, paradigm.mask_id, images), images, same)
        nats = paradigm.head.negative_log_likelihood(out.flatten(0, 1), images.flatten()).view(81, 4)
        exact += (nats * hidden).sum(1) / 2
    assert 0.9 < float((-exact).exp().sum()) < 1
    torch.manual_seed(0)
    draws = torch.stack([paradigm.negative_log_likelihood(images, same) for _ in range(400)])
    assert float((draws.mean(0) - exact).abs().max()) < 5 * float(draws.std(0).max()) / 20
    assert float(draws.mean()) == pytest.approx(float(exact.mean()), rel=2e-3)


@torch.no_grad()
def test_one_block_is_the_bound_of_absorbing_diffusion() -> None:
    """masked-token's bound with the same weights and masks, where its condition does not look at the tokens."""
    paradigm, twin, (tokens, condition) = shaken("block-diffusion", block=16), build("masked-token"), batch(32)
    twin.load_state_dict(paradigm.state_dict())
    original = twin.backbone.forward
    total = CONDITIONS.num_tokens + CODES.num_tokens
    mask = torch.ones(total, total, dtype=torch.bool)
    mask[: CONDITIONS.num_tokens, CONDITIONS.num_tokens :] = False
    twin.backbone.forward = lambda *inputs: original(*inputs, mask=mask)
    inputs: list[Tensor] = []
    contexts = paradigm.contexts
    paradigm.contexts = lambda noisy, *rest: inputs.append(noisy) or contexts(noisy, *rest)
    nats = paradigm.negative_log_likelihood(tokens, condition)
    hidden = inputs[0] == paradigm.mask_id
    out = twin.head.negative_log_likelihood(twin.contexts(inputs[0], condition).flatten(0, 1), tokens.flatten())
    torch.testing.assert_close(nats, (out.view(tokens.shape) * hidden).sum(1) * 16 / hidden.sum(1))
    draws = 4000
    same, many = tokens[:1].expand(draws, -1), Condition.of(condition.tokens[:1].expand(draws, -1))
    torch.manual_seed(0)
    ours, theirs = paradigm.negative_log_likelihood(same, many), twin.negative_log_likelihood(same, many)
    error = math.sqrt(float(ours.var() + theirs.var()) / draws)
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=4 * error)


@torch.no_grad()
def test_every_number_of_hidden_tokens_is_equally_likely_in_every_block() -> None:
    paradigm, inputs = build("block-diffusion", block=4), []
    paradigm.contexts = lambda noisy, *_: inputs.append(noisy) or torch.zeros(*noisy.shape, BACKBONE.width)
    torch.manual_seed(0)
    paradigm.loss(*batch(8000))
    numbers = (inputs[0] == paradigm.mask_id).unflatten(1, (4, 4)).sum(2)  # (B, K)
    for block in numbers.T:
        torch.testing.assert_close(torch.bincount(block, minlength=5)[1:] / 8000, torch.full((4,), 0.25), rtol=0, atol=0.02)
    assert torch.equal(numbers.sort(1)[0], torch.tensor([1, 2, 3, 4]).expand(8000, -1))  # spread evenly over an image


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("block", SIZES)
@torch.no_grad()
def test_cached_sampling_sees_what_training_sees(block: int, guidance: float) -> None:
    """Logits at every step of the sampler, against one masked pass over the final tokens with the noisy block of that step."""
    paradigm, (_, condition) = shaken("block-diffusion", block=block), batch()
    guide, seen = Guidance(condition, guidance), []
    original, embed = paradigm.head.logits.forward, paradigm.embed_tokens.forward
    inputs: list[Tensor] = []
    paradigm.embed_tokens.forward = lambda tokens: inputs.append(tokens) or embed(tokens)
    paradigm.head.logits.forward = lambda x: seen.append((inputs[-1], original(x))) or seen[-1][1]
    steps = min(block, 3)
    tokens = paradigm.sample(condition, steps=steps, guidance=guidance, temperature=1.0, generator=generator())
    assert len(seen) == steps * CODES.num_tokens // block
    final = guide.double(tokens)
    for index, (noisy, logits) in enumerate(seen):
        mine = slice(index // steps * block, (index // steps + 1) * block)
        whole = torch.full_like(final, paradigm.mask_id)
        whole[:, mine] = noisy
        slow = original(paradigm.contexts(whole, final, guide.condition)[:, mine])
        torch.testing.assert_close(logits, slow, rtol=1e-4, atol=1e-5)
    revealed = noisy != paradigm.mask_id
    assert torch.equal(noisy[revealed], final[:, mine][revealed])  # what is revealed stays


def test_bad_blocks_and_steps_are_refused() -> None:
    for block in (0, 3, 32):
        with pytest.raises(ValueError, match="block must divide the 16 tokens"):
            build("block-diffusion", block=block)
    with pytest.raises(ValueError, match="steps must be 1 to 4, not 5"):
        build("block-diffusion").sample(batch()[1], steps=5, guidance=1.0, temperature=1.0, generator=generator())
