"""The validation loss: what it must be by definition, how far its noise moves it, and that it is measured on unseen images."""

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from spaces import CODES, CONDITIONS, space_of
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.config.file import load_experiment
from bench.data.image_data import TokenizedImages
from bench.data.open import open_data
from bench.evaluate.even_draws import EvenDraws
from bench.evaluate.validation import ValidationImages, checked_nats, per_image, validation_columns
from bench.flops.evaluation import VALIDATION_BATCH, num_validation_images
from bench.model import build_meta, build_paradigm
from bench.paradigm import Paradigm, TokenSpace
from bench.plan.cells import first_run
from bench.plan.cost import count_run
from bench.registry import BUILT_INS, load
from bench.testing import descend, example_batch, shake
from paradigms.heads import CrossEntropy
from paradigms.masked_token import MaskedToken

BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)
OF_CODES = ("next-token", "masked-token", "mar-discrete")
TINY = TokenSpace(kind="codes", grid=2, vocabulary=3)
ALL_TINY = torch.tensor(list(itertools.product(range(3), repeat=4)))
"""Every image of four tokens of three codes, (81, 4)."""
SHAPES = load_experiment("shapes")
SHORT = 2e10
"""FLOPs at which a network of width 24 sees about 4,000 images."""


def build(name: str, space: TokenSpace, **options: object) -> Paradigm:
    torch.manual_seed(0)
    return load(name)(BACKBONE, space, CONDITIONS, **options).eval()


def same_condition(num: int) -> Condition:
    return Condition.of(torch.ones(num, CONDITIONS.num_tokens, dtype=torch.int64))


def uniform(name: str, **options: object) -> Paradigm:
    """A network that gives every code the same probability."""
    paradigm = build(name, CODES, **options)
    for parameter in paradigm.head.logits.parameters():
        parameter.data.zero_()
    return paradigm


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in (*OF_CODES, "block-diffusion")),
        ("next-token", {"order": "random"}),
        ("masked-token", {"weight": "token"}),
        ("masked-token", {"weight": "elbo"}),
    ],
)
@torch.no_grad()
def test_a_uniform_predictor_needs_ln_v_per_token(name: str, options: dict[str, object]) -> None:
    paradigm = uniform(name, **options)
    tokens, condition = example_batch(CODES)[0], same_condition(8)
    nats = checked_nats(paradigm, tokens, condition)
    torch.testing.assert_close(nats, torch.full((8,), CODES.num_tokens * math.log(CODES.vocabulary)))
    if options.get("weight") != "token":  # the mean over a law of masks, not of each image's
        torch.testing.assert_close(paradigm.loss(tokens, condition)[0], torch.full((8,), math.log(CODES.vocabulary)))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@torch.no_grad()
def test_the_likelihoods_of_all_images_sum_to_one(smoothing: float) -> None:
    paradigm = build("next-token", TINY, head_options={"label_smoothing": smoothing})
    shake(paradigm)
    nats = checked_nats(paradigm, ALL_TINY, same_condition(81))
    assert nats is not None
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-5)
    assert float(nats.std()) > 0.1  # a network that prefers some images


def mean_nats(paradigm: Paradigm, tokens: Tensor, draws: int) -> Tensor:
    """Mean of a bound over evenly spread draws, per image (B,)."""
    repeated = tokens.repeat_interleave(draws, 0)
    torch.manual_seed(0)
    nats = []
    for start in range(0, len(repeated), draws):
        with EvenDraws(draws, start, 0):
            nats.append(checked_nats(paradigm, repeated[start : start + draws], same_condition(draws)).mean())
    return torch.stack(nats)


@pytest.mark.parametrize("name", ["masked-token", "next-token"])
@torch.no_grad()
def test_bounds_leave_a_total_below_one(name: str) -> None:
    paradigm = build(name, TINY, **({"order": "random"} if name == "next-token" else {}))
    shake(paradigm)
    total = float((-mean_nats(paradigm, ALL_TINY, 48)).exp().sum())
    assert 0.5 < total < 1


class ExactConditionals(torch.nn.Module):
    """A head whose rows are log-probabilities already."""

    def negative_log_likelihood(self, rows: Tensor, target: Tensor) -> Tensor:
        return -rows.gather(1, target[:, None])[:, 0]


class ExactModel(MaskedToken):
    """Every conditional of one table of the probabilities of all tiny images, (81,)."""

    def set_table(self, table: Tensor) -> None:
        self.table, self.head = table, ExactConditionals()

    def contexts(self, tokens: Tensor, condition: Condition) -> Tensor:
        agree = ((tokens[:, None] == ALL_TINY) | (tokens[:, None] == self.mask_id)).all(2) * self.table  # (B, 81)
        ones = torch.nn.functional.one_hot(ALL_TINY, 3).to(agree)  # (81, 4, 3)
        return (torch.einsum("bs,snv->bnv", agree, ones) / agree.sum(1)[:, None, None]).log()


@torch.no_grad()
def test_the_bound_of_exact_conditionals_is_the_exact_likelihood() -> None:
    generator = torch.Generator().manual_seed(1)
    table = torch.rand(81, generator=generator, dtype=torch.float64).pow(2)
    table /= table.sum()
    model = ExactModel(BACKBONE, TINY, CONDITIONS)
    model.set_table(table)
    chosen = torch.tensor([0, 7, 40, 55, 80])
    found = mean_nats(model, ALL_TINY[chosen], 6000)
    torch.testing.assert_close(found, -table[chosen].log(), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in sorted(BUILT_INS) if load(name).reads == "latents"]
    + [("next-token-continuous", {"head": "mixture"})],
)
def test_densities_of_latents_are_no_bits(name: str, options: dict[str, object]) -> None:
    space = space_of(load(name))
    paradigm = build(name, space, **options)
    assert paradigm.negative_log_likelihood(*example_batch(space)) is None


def test_a_wrong_likelihood_is_refused() -> None:
    paradigm = build("next-token", CODES)
    tokens, condition = example_batch(CODES)[0], same_condition(8)
    for wrong, words in (
        (torch.zeros(8, 2), "shape"),
        (torch.full((8,), -1.0), "at least 0"),
        (torch.full((8,), math.nan), "finite"),
    ):
        paradigm.negative_log_likelihood = lambda *_, wrong=wrong: wrong
        with pytest.raises(ValueError, match=words):
            checked_nats(paradigm, tokens, condition)


# -- even draws


def test_draws_per_image_fill_equal_intervals() -> None:
    num = 64
    for index in range(3):
        with EvenDraws(num, index, 0):
            values, column, normal = torch.rand(num), torch.rand(num, 1), torch.randn(num)
            steps, rows = torch.randint(1000, (num,)), torch.rand(3 * num, dtype=torch.float64)
        for drawn in (values, column[:, 0], torch.special.ndtr(normal), (steps + 0.5) / 1000):
            assert sorted((drawn * num).floor().clamp(0, num - 1).int().tolist()) == list(range(num))
        assert rows.dtype == torch.float64
        assert sorted((rows * 3 * num).floor().int().tolist()) == list(range(3 * num))
        assert steps.dtype == torch.int64
        assert not torch.equal(values.argsort(), column[:, 0].argsort())  # two draws of one loss are independent


def test_draws_per_batch_are_spread_over_batches() -> None:
    found = []
    for index in range(20):
        with EvenDraws(8, index, 3):
            found.append(float(torch.rand((), dtype=torch.float64)))
    gaps = np.diff([0.0, *sorted(found), 1.0])
    assert gaps.max() < 2.7 / 20
    assert len(set(found)) == 20


def test_noise_of_tokens_is_drawn_as_without() -> None:
    torch.manual_seed(5)
    plain = torch.randn(8, 16, 4), torch.rand(8, 16)
    torch.manual_seed(5)
    with EvenDraws(8, 0, 0):
        inside = torch.randn(8, 16, 4), torch.rand(8, 16)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


# -- on the data of the default experiment


@cache
def dataset():
    return open_data(SHAPES.data)


@cache
def images(tokenizer: str) -> ValidationImages:
    return ValidationImages(dataset(), tokenizer, SHAPES.recipe.num_training_images)


@cache
def trained(method: str) -> Paradigm:
    """A small network after 60 steps."""
    chosen = next(m for m in SHAPES.methods if m.name == method)
    run = replace(first_run(SHAPES, chosen, SHAPES.sizes[0], round(SHORT), dataset()), width=24, num_heads=2)
    paradigm = build_paradigm(run, dataset().space(chosen.tokenizer), dataset().conditions)
    source = images(chosen.tokenizer)

    descend(paradigm, lambda step: source.batch(100 + step), 60, rate=4e-3)
    return paradigm.eval()


METHODS = [method.name for method in SHAPES.methods]
TOKENIZERS = {method.name: method.tokenizer for method in SHAPES.methods}


@pytest.mark.parametrize("method", METHODS)
def test_another_seed_of_noise_changes_it_by_less_than_a_percent(method: str) -> None:
    num, source = num_validation_images(SHORT, 16), images(TOKENIZERS[method])
    found = [per_image(trained(method), source, num, bits=False, noise_seed=seed).mean().item() for seed in range(6)]
    assert np.std(found, ddof=1) / np.mean(found) < 0.01
    if method != "next-token":  # which draws nothing
        assert len(set(found)) == 6


@pytest.mark.parametrize("method", ["diffusion", "next-token"])
def test_it_costs_about_a_twentieth_of_a_short_training(method: str) -> None:
    chosen = next(m for m in SHAPES.methods if m.name == method)
    run = replace(first_run(SHAPES, chosen, SHAPES.sizes[0], round(SHORT), dataset()), width=24, num_heads=2)
    space, conditions = dataset().space(chosen.tokenizer), dataset().conditions
    per_image_flops = count_run(run, build_meta(run, space, conditions), conditions).dense
    passes = 2 + bool(space.vocabulary)  # averaged and raw weights, and the likelihood of codes
    spent = passes * num_validation_images(SHORT, space.num_tokens) * per_image_flops / 3
    assert spent / SHORT < 0.06


def test_longer_runs_and_shorter_images_get_more() -> None:
    numbers = [num_validation_images(budget, 16) for budget in (1e8, 2e10, 2e11, 2e12, 1e20)]
    assert numbers == sorted(numbers)
    assert numbers[0] == 2 * VALIDATION_BATCH
    assert numbers[1] == 192
    assert num_validation_images(2e12, 64) < num_validation_images(2e12, 16)


def test_neither_the_state_of_the_generator_nor_what_was_measured_before_matters() -> None:
    paradigm, source = trained("masked-token"), images("autoencoder-fsq")
    first, anew = per_image(paradigm, source, 96, bits=False), ValidationImages(dataset(), "autoencoder-fsq", 65_536)
    torch.manual_seed(77)
    before = torch.get_rng_state()
    again = per_image(paradigm, anew, 64, bits=False)
    assert torch.equal(again, first[:64])  # the first images of a longer rung are those of a shorter one
    assert torch.equal(torch.get_rng_state(), before)


def measured_anew() -> str:
    """The loss of a network that every process builds alike, to the last bit."""
    data, small = open_data("shapes32"), BackboneConfig(width=32, depth=2, num_heads=2)
    torch.manual_seed(0)
    paradigm = load("masked-token")(small, data.space("autoencoder-fsq"), data.conditions).eval()
    return per_image(paradigm, ValidationImages(data, "autoencoder-fsq", 9), 64, bits=False).mean().item().hex()


def test_another_process_measures_the_same_to_the_last_bit() -> None:
    script = "import torch; torch.set_num_threads(1); from test_validation_loss import measured_anew; print(measured_anew())"
    paths = ":".join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == measured_anew()


def test_its_captions_are_none_of_training() -> None:
    world = dataset().world
    _, encode = dataset().validation_encoder("autoencoder-fsq", 65_536)
    seen = {tuple(row) for row in world.caption_tokens[world.split_ids("train")]}
    held = {tuple(row) for row in world.caption_tokens[world.split_ids("test")]}
    asked = {tuple(row) for row in encode(range(64)).condition}
    assert not asked & (seen | held)


def test_images_that_training_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARADIGM_BENCH_CACHE", str(tmp_path))
    data = load_experiment("digits").data
    available, encode = TokenizedImages(data).validation_encoder("fsq", 1347)
    assert available == 449
    assert encode(range(32)).tokens.shape == (32, 1, 16)
    alone = TokenizedImages(replace(data, evaluation_split=""))
    rest, encode = alone.validation_encoder("fsq", 1300)
    assert rest == 48
    images_left, _, _ = alone.training_set.read(range(1300, 1348))
    tokens = alone.tokenizer("fsq").encode(torch.from_numpy(images_left)).numpy()
    assert {tuple(row) for row in encode(range(48)).tokens[:, 0]} == {tuple(row) for row in tokens}
    few = ValidationImages(alone, "fsq", 1347)
    assert validation_columns(build("next-token", alone.space("fsq")), few, 192, likelihood=True) == {}


def test_columns_of_codes_and_of_latents() -> None:
    codes = validation_columns(trained("next-token"), images("autoencoder-fsq"), 96, likelihood=True)
    assert codes["validation_images"] == 96
    assert codes["validation_bits"] == pytest.approx(codes["validation_loss"] * 16 / math.log(2), rel=1e-5)
    assert codes["validation_bits_se"] == pytest.approx(codes["validation_loss_se"] * 16 / math.log(2), rel=1e-4)
    assert "validation_bits" not in validation_columns(trained("next-token"), images("autoencoder-fsq"), 96, likelihood=False)
    latents = validation_columns(trained("diffusion"), images("autoencoder-kl"), 96, likelihood=True)
    assert set(latents) == {"validation_loss", "validation_loss_se", "validation_images"}
    assert isinstance(trained("next-token").head, CrossEntropy)
