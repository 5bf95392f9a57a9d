"""Next-scale prediction and its tokenizer by known answers: sums of scales, who sees whom, the cache, exact likelihoods."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from spaces import CODES, CONDITIONS, LATENTS, SCALES
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, Guidance
from bench.config.tokenizers import AutoencoderConfig, TokenizerConfig
from bench.data.open import open_data
from bench.flops.meter import FlopMeter
from bench.paradigm import Paradigm, TokenSpace, enlarge, shrink, sums_of_scales
from bench.registry import BUILT_INS, load
from bench.testing import descend, example_batch, shake
from bench.tokenizers.autoencoder import Autoencoder
from bench.tokenizers.residual import RANGE, ResidualQuantizer, code_vectors
from bench.tokenizers.tokenizer import Tokenizer
from paradigms.next_scale import NextScale

BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
TINY = TokenSpace(kind="codes", grid=2, vocabulary=2, scales=(1, 2), code_vectors=torch.tensor([[-1.0], [1.0]]))
ALL_TINY = torch.tensor(list(itertools.product(range(2), repeat=5)))
"""Every image of one coarse and four fine codes, (32, 5)."""
LEVELS = (8, 8, 4, 4)
PUBLISHED = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""Sides of VAR's grids."""


def build(space: TokenSpace = SCALES, *, shaken: bool = True) -> NextScale:
    torch.manual_seed(0)
    paradigm = NextScale(BACKBONE, space, CONDITIONS).eval()
    if shaken:
        shake(paradigm)
    return paradigm


def conditions(size: int) -> Condition:
    return Condition.of(torch.randint(1, 14, (size, CONDITIONS.num_tokens), generator=torch.Generator().manual_seed(1)))


def draw(paradigm: Paradigm, condition: Condition, guidance: float = 1.0, steps: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return paradigm.sample(condition, steps=steps, guidance=guidance, temperature=1.0, generator=generator)


def random_latents(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# -- the space and its arithmetic


def test_tokens_of_several_scales() -> None:
    assert (SCALES.num_tokens, SCALES.sizes) == (21, (1, 4, 16))
    assert replace(SCALES, grid=16, scales=(1, 2, 4, 8, 16)).num_tokens == 341
    assert replace(SCALES, grid=16, scales=PUBLISHED).num_tokens == 680
    assert SCALES.example(3).shape == SCALES.empty(3, torch.device("cpu")).shape == (3, 21)
    assert replace(SCALES, code_vectors=None) == SCALES
    assert hash(replace(SCALES, code_vectors=None)) == hash(SCALES)
    assert "tensor" not in repr(SCALES)


@pytest.mark.parametrize("scales", [(1, 2), (4, 2, 1), (2, 2, 4), (0, 4), (1, 2, 4, 8)])
def test_scales_that_do_not_fit_are_refused(scales: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascend to the grid of 4, of codes"):
        replace(SCALES, scales=scales)
    with pytest.raises(ValueError, match="of codes"):
        replace(LATENTS, scales=(1, 2, 4))


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_shrinking_averages_and_enlarging_repeats(side: int) -> None:
    fine, coarse = random_latents(3, 16, 5), random_latents(3, side**2, 5)

    def picture(x: Tensor) -> Tensor:
        return x.transpose(1, 2).unflatten(2, (math.isqrt(x.shape[1]),) * 2)

    torch.testing.assert_close(picture(shrink(fine, side)), F.interpolate(picture(fine), (side, side), mode="area"))
    assert torch.equal(picture(enlarge(coarse, 4)), F.interpolate(picture(coarse), (4, 4), mode="nearest"))
    if 4 % side == 0:
        torch.testing.assert_close(shrink(enlarge(coarse, 4), side), coarse)


def test_an_image_is_the_sum_of_its_grids() -> None:
    one, four = torch.tensor([[[10.0]]]), torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    first, second, third = sums_of_scales([one, four, torch.arange(16.0).view(1, 16, 1) / 100], 4)
    assert torch.equal(first, torch.full((1, 16, 1), 10.0))
    assert second[0, :, 0].tolist() == [11, 11, 12, 12, 11, 11, 12, 12, 13, 13, 14, 14, 13, 13, 14, 14]
    torch.testing.assert_close(third - second, torch.arange(16.0).view(1, 16, 1) / 100, rtol=0, atol=1e-5)


def test_who_takes_several_scales() -> None:
    for name in BUILT_INS:
        cls = load(name)
        if cls.reads == "latents":
            continue
        if cls.grids == "one":
            with pytest.raises(ValueError, match="reads one grid of tokens, not grids of side 1, 2, 4; give it another"):
                cls(BACKBONE, SCALES, CONDITIONS)
            continue
        torch.manual_seed(0)
        paradigm = cls(BACKBONE, SCALES, CONDITIONS)
        assert torch.isfinite(paradigm.loss(SCALES.example(4), conditions(4))[0]).all()
        assert draw(paradigm, conditions(2)).shape == (2, 21)
    with pytest.raises(ValueError, match="NextScale reads grids of several scales, not grids of side 4"):
        build(CODES)
    with pytest.raises(ValueError, match="states them"):
        build(replace(SCALES, code_vectors=None))


# -- the tokenizer


@pytest.mark.parametrize("levels", [LEVELS, (3, 5), (6, 7, 4)])
def test_code_vectors_are_those_of_the_library(levels: tuple[int, ...]) -> None:
    from vector_quantize_pytorch import FSQ

    vectors = code_vectors(levels)
    assert vectors.shape == (math.prod(levels), len(levels))
    assert torch.equal(vectors, FSQ(levels=list(levels)).indices_to_codes(torch.arange(len(vectors))))
    quantizer = ResidualQuantizer(levels, (1,))
    assert torch.equal(quantizer.nearest(vectors), torch.arange(len(vectors)))
    near = vectors + 0.9 * (torch.rand(vectors.shape, generator=torch.Generator().manual_seed(0)) - 0.5) / (max(levels) // 2)
    assert torch.equal(quantizer.nearest(near), torch.arange(len(vectors)))


def test_the_published_grids_telescope() -> None:
    """What the 680 codes say and what they leave make the latents, whatever the sides."""
    quantizer, latents = ResidualQuantizer(LEVELS, PUBLISHED), random_latents(2, 256, 4)
    image, codes = quantizer(latents)
    assert codes.shape == (2, 680)
    bounded, said = RANGE * torch.tanh(latents / RANGE), torch.zeros_like(latents)
    for side, part in zip(PUBLISHED, codes.split([side**2 for side in PUBLISHED], dim=1), strict=True):
        assert torch.equal(part, quantizer.nearest(shrink(bounded - said, side)))
        said = said + enlarge(quantizer.vectors[part], 16)
    torch.testing.assert_close(said, image)
    torch.testing.assert_close(quantizer.indices_to_codes(codes), image)


def test_codes_are_sums_that_come_back() -> None:
    """What the codes say is what was quantized: the bounded latents rounded to a step, where the grids reach."""
    quantizer = ResidualQuantizer(LEVELS, (1, 2, 4))
    latents = 0.4 * random_latents(200, 16, 4)
    image, codes = quantizer(latents)
    assert codes.shape == (200, 21)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 1024
    torch.testing.assert_close(quantizer.indices_to_codes(codes), image)
    bounded = RANGE * torch.tanh(latents / RANGE)
    half = torch.tensor(LEVELS) // 2
    rounded = (bounded * half).round() / half
    reached = (bounded - image).abs() <= 0.5 / half + 1e-5
    assert float(reached.float().mean()) > 0.97
    torch.testing.assert_close(image[reached], rounded[reached])


def test_every_scale_explains_some_of_what_is_left() -> None:
    latents = random_latents(100, 16, 4)
    quantizer = ResidualQuantizer(LEVELS, (1, 2, 4))
    codes = quantizer(latents)[1].split([1, 4, 16], dim=1)
    bounded = RANGE * torch.tanh(latents / RANGE)
    left = [bounded, *(bounded - image for image in sums_of_scales([quantizer.vectors[part] for part in codes], 4))]
    energy = [float(x.square().mean()) for x in left]
    assert energy == sorted(energy, reverse=True)
    assert energy[0] > 10 * energy[-1]
    for before, after, side in zip(left, left[1:], (1, 2, 4), strict=False):  # a code is the nearest to the mean of its block
        assert torch.equal(quantizer.nearest(shrink(before, side)), codes[(1, 2, 4).index(side)])
        assert float(shrink(after, side).square().mean()) < 0.5 * float(shrink(before, side).square().mean())


def test_gradients_go_straight_through() -> None:
    latents = random_latents(2, 16, 4).requires_grad_()
    weights = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(1))
    (ours,) = torch.autograd.grad((ResidualQuantizer(LEVELS, (1, 2, 4))(latents)[0] * weights).sum(), latents)
    (theirs,) = torch.autograd.grad((RANGE * torch.tanh(latents / RANGE) * weights).sum(), latents)
    torch.testing.assert_close(ours, theirs)


def test_an_autoencoder_of_several_scales(tmp_path: Path) -> None:
    """Its codes fit their space, decode to what the latents before them decode to, and survive the file."""
    config = AutoencoderConfig(bottleneck="fsq", resolution=16, patch=4, width=16, levels=LEVELS, scales=(1, 2, 4))
    torch.manual_seed(0)
    model = Autoencoder(config).eval()
    tokenizer, before = (Tokenizer(model, TokenizerConfig(part="a", before_quantization=b)) for b in (False, True))
    assert (tokenizer.space.num_tokens, before.space.num_tokens, before.space.scales) == (21, 16, ())
    images = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes = tokenizer.encode(images)
        assert codes.shape == (4, 21)
        assert torch.equal(tokenizer.decode(codes), before.reconstruct(images))
        model.save(tmp_path / "a.safetensors")
        again = Autoencoder.load(tmp_path / "a.safetensors")
        assert again.config == config
        assert torch.equal(again.encode_codes(images), codes)
    assert model.decoder_flops() > 0


def test_scales_of_the_sprites_double_up_to_the_grid() -> None:
    spaces = [open_data(level).space("autoencoder-scales") for level in ("sprites40", "sprites80", "sprites160")]
    assert [space.scales for space in spaces] == [(1, 2, 4), (1, 2, 4, 8), (1, 2, 4, 8, 16)]
    assert [space.vocabulary for space in spaces] == [1024] * 3
    assert spaces[0].code_vectors is not None
    assert spaces[0].code_vectors.shape == (1024, 4)


# -- the paradigm


def test_inputs_are_the_image_of_the_coarser_grids() -> None:
    paradigm = build()
    tokens = SCALES.example(3, torch.Generator().manual_seed(2))
    one, four, _ = tokens.split(SCALES.sizes, dim=1)
    inputs = paradigm.inputs(tokens)
    assert torch.equal(inputs[:, :1], torch.zeros(3, 1, 3))
    vectors = paradigm.vectors
    torch.testing.assert_close(inputs[:, 1:5], vectors[one].expand(-1, 4, -1))
    block = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3])
    torch.testing.assert_close(inputs[:, 5:], vectors[one] + vectors[four][:, block])


def test_a_scale_sees_no_code_of_its_own_or_of_finer_ones() -> None:
    paradigm, condition = build(), conditions(2)
    tokens = SCALES.example(2, torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = paradigm.contexts(tokens, condition)
        for place in range(21):
            end = 1 if place < 1 else 5 if place < 5 else 21
            changed = tokens.clone()
            changed[:, place] = (changed[:, place] + 21) % 64
            after = paradigm.contexts(changed, condition)
            assert torch.equal(after[:, :end], before[:, :end])
            assert ((after - before)[:, end:].abs().amax((0, 2)) > 1e-5).all()


def test_positions_of_a_scale_see_each_other() -> None:
    """And the prefix, and coarser ones, but no finer ones."""
    paradigm, condition = build(), conditions(1)
    tokens = SCALES.example(1, torch.Generator().manual_seed(2))
    places = paradigm.positions.detach().clone()
    with torch.no_grad():
        before = paradigm.contexts(tokens, condition)
        for place, start in ((0, 0), (3, 1), (5, 5), (20, 5)):
            paradigm.positions.copy_(places)
            paradigm.positions[place] += random_latents(32)
            moved = (paradigm.contexts(tokens, condition) - before).abs().amax((0, 2)) > 1e-6
            assert moved.tolist() == [number >= start for number in range(21)]


@pytest.mark.parametrize(("scales", "guidance"), [((1, 2, 4), 1.0), ((1, 2, 4), 3.0), ((1, 3, 4), 1.0), (PUBLISHED, 1.0)])
def test_cached_logits_are_those_of_the_training_pass(scales: tuple[int, ...], guidance: float) -> None:
    space = replace(SCALES, grid=scales[-1], scales=scales)
    paradigm, condition, seen = build(space), conditions(4), []
    original = paradigm.head.draw
    paradigm.head.draw = lambda logits, *rest: seen.append(logits) or original(logits, *rest)
    lengths = []
    paradigm.backbone.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[:2]))
    drawn, guide = draw(paradigm, condition, guidance), Guidance(condition, guidance)
    rows, (first, *later) = 4 if guidance == 1 else 8, space.sizes
    assert lengths == [(rows, CONDITIONS.num_tokens + first), *((rows, size) for size in later)]
    with torch.no_grad():
        whole = guide.mix(paradigm.head.logits(paradigm.contexts(guide.double(drawn), guide.condition)))
    torch.testing.assert_close(torch.cat(seen, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_a_uniform_predictor_needs_ln_v_per_token() -> None:
    paradigm = build()
    for parameter in paradigm.head.parameters():
        parameter.data.zero_()
    tokens, _ = example_batch(SCALES)
    with torch.no_grad():
        torch.testing.assert_close(paradigm.loss(tokens, conditions(8))[0], torch.full((8,), math.log(64)))
        torch.testing.assert_close(paradigm.negative_log_likelihood(tokens, conditions(8)), torch.full((8,), 21 * math.log(64)))


def test_the_likelihoods_of_all_images_sum_to_one() -> None:
    paradigm = build(TINY)
    with torch.no_grad():
        nats = paradigm.negative_log_likelihood(ALL_TINY, conditions(1)[torch.zeros(32, dtype=torch.int64)])
        torch.testing.assert_close(5 * paradigm.loss(ALL_TINY, conditions(1)[torch.zeros(32, dtype=torch.int64)])[0], nats)
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-5)
    assert float(nats.std()) > 0.1


def test_one_scale_is_a_model_of_independent_codes() -> None:
    """No code sees another, and the likelihood of an image is the product of its codes' own."""
    paradigm = build(replace(TINY, scales=(2,)))
    images = torch.tensor(list(itertools.product(range(2), repeat=4)))
    condition = conditions(1)[torch.zeros(16, dtype=torch.int64)]
    with torch.no_grad():
        out = paradigm.contexts(images, condition)
        assert torch.equal(out, out[:1].expand_as(out))
        odds = paradigm.head.logits(out[0]).log_softmax(1)  # (4, 2)
        expected = -odds[torch.arange(4), images].sum(1)
        torch.testing.assert_close(paradigm.negative_log_likelihood(images, condition), expected)
    assert draw(paradigm, conditions(3), steps=1).shape == (3, 4)


def test_a_step_costs_the_same_whatever_is_drawn() -> None:
    with torch.device("meta"):
        meter = FlopMeter(NextScale(BACKBONE, SCALES, CONDITIONS), CONDITIONS, "meta-v2")
    assert len({meter.count(4, seed).dense for seed in range(3)}) == 1


def test_other_numbers_of_steps_are_refused() -> None:
    paradigm = build()
    assert torch.equal(draw(paradigm, conditions(2), steps=3), draw(paradigm, conditions(2)))
    with pytest.raises(ValueError, match="one scale per step: it takes exactly 3 steps, not 21"):
        draw(paradigm, conditions(2), steps=21)


COARSE = 0.3
"""Probability of the coarse code 1."""
FINE = torch.tensor([[0.9, 0.2, 0.5, 0.1], [0.2, 0.6, 0.1, 0.8]])
"""Probability of each fine code to be 1, for each coarse code."""


def exact_nats(images: Tensor) -> Tensor:
    """-log p (B,) of tiny images (B, 5)."""
    coarse, fine = images[:, 0], images[:, 1:]
    odds = FINE[coarse]
    return -(
        torch.where(coarse == 1, math.log(COARSE), math.log(1 - COARSE))
        + torch.where(fine == 1, odds.log(), (1 - odds).log()).sum(1)
    )


def test_a_known_distribution_is_learnt_and_drawn() -> None:
    """Fine codes depend on the coarse one: the likelihood and the shares of drawn images are the distribution's."""
    paradigm, same = build(TINY, shaken=False), conditions(1)

    def batch(step: int) -> tuple[Tensor, Condition]:
        generator = torch.Generator().manual_seed(step)
        rows = torch.multinomial((-exact_nats(ALL_TINY)).exp(), 256, replacement=True, generator=generator)
        return ALL_TINY[rows], same[torch.zeros(256, dtype=torch.int64)]

    descend(paradigm.train(), batch, 100)
    with torch.no_grad():
        nats = paradigm.eval().negative_log_likelihood(ALL_TINY, same[torch.zeros(32, dtype=torch.int64)])
    expected = (-exact_nats(ALL_TINY)).exp()
    assert float((expected - (-nats).exp()).abs().sum()) / 2 < 0.04
    drawn = draw(paradigm, same[torch.zeros(10_000, dtype=torch.int64)])
    shares = torch.bincount((drawn * 2 ** torch.arange(4, -1, -1)).sum(1), minlength=32) / len(drawn)
    assert float((expected - shares).abs().sum()) / 2 < 0.05
