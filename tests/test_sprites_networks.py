"""The networks that ship with the sprites world: what their cards say, and that they still do it."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.open import open_data
from bench.data.sprites_config import Captions
from bench.data.sprites_data import TokenizedSprites
from bench.data.sprites_render import render_captions, render_split
from bench.evaluate.image_stream import ImageStream
from bench.evaluate.open import open_judge
from bench.evaluate.sprites_judge import SpritesJudge
from bench.evaluate.sprites_verifier import verify
from bench.prepare.networks import own_networks
from bench.results.columns import DECILES
from bench.results.folder import Results

TWINS = ("autoencoder-kl", "autoencoder-fsq", "autoencoder-scales")
REBUILT = {"autoencoder-kl": 0.98, "autoencoder-fsq": 0.97, "autoencoder-scales": 0.97}
"""Least share of level 1's reconstructions that the verifier reads as the caption says."""


def opened(level: str) -> TokenizedSprites:
    dataset = open_data(level)
    assert isinstance(dataset, TokenizedSprites)
    return dataset


def test_the_card_is_of_these_networks_and_its_errors_hold() -> None:
    dataset = opened("sprites40")
    if not (dataset.folder / "card.json").exists():
        pytest.skip("no card yet: `paradigm-bench prepare sprites40 --measure` writes it")
    card = json.loads((dataset.folder / "card.json").read_text())
    assert card["sha256_12"] == {network: dataset.hash(network) for network in own_networks(dataset)}
    assert card["world"]["name"] == "sprites40"
    assert card["verifier"]["num_images_each"] == 10_000
    assert set(card["verifier"]["false_rejects"]) == {"train", "validation", "test", "held_out", "uniform"}
    assert max(card["verifier"]["false_rejects"].values()) < 1e-3
    assert max(rate for name, rate in card["verifier"]["accepted"].items() if not name.startswith("one cell")) < 1e-3
    assert min(rate for name, rate in card["clip"].items() if "_beats_" in name) > 0.99
    for twin in TWINS:
        assert min(card["autoencoders"][twin][f"exact_{split}"] for split in ("test", "held_out", "uniform")) > REBUILT[twin]


@pytest.mark.parametrize("twin", TWINS)
def test_reconstructions_are_read_as_the_captions_say(twin: str) -> None:
    dataset = opened("sprites40")
    images, captions = render_split(dataset.world, "uniform", np.arange(200))
    with torch.inference_mode():
        rebuilt = dataset.tokenizer(twin).reconstruct(torch.from_numpy(images))
    assert verify(dataset.world, rebuilt.numpy(), captions).exact.mean() > REBUILT[twin] - 0.03


def test_levels_share_their_twins_and_probe() -> None:
    one, three = opened("sprites40"), opened("sprites160")
    for network in (*TWINS, "probe"):
        assert one.hash(network) == three.hash(network) != ""
    assert one.weights_file("clip") != three.weights_file("clip")
    assert [opened(level).space("autoencoder-kl").num_tokens for level in ("sprites40", "sprites80", "sprites160")] == [
        16,
        64,
        256,
    ]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> SpritesJudge:
    settings = Evaluation(num_samples=80, num_held_out=150, num_validation=80, num_reference=200)
    found = open_judge(opened("sprites40"), settings, Results(tmp_path_factory.mktemp("judge")))
    assert isinstance(found, SpritesJudge)
    return found


def test_a_decile_that_is_drawn_wrong_shows_in_its_column_alone(judge: SpritesJudge) -> None:
    world = judge.world

    def draw(tokens: Tensor, split: str) -> ImageStream:
        captions = world.draw(split, np.arange(len(tokens)))  # type: ignore[arg-type]
        assert torch.equal(tokens, torch.from_numpy(world.tokens(captions)))
        parts = {f.name: getattr(captions, f.name).copy() for f in fields(captions)}
        rare = world.deciles[captions.kind] == 9
        parts["kind"] = np.where(rare & captions.named & (split == "uniform"), captions.kind - 26, captions.kind)
        images = render_captions(world, Captions(**parts), np.arange(len(tokens)), "test")
        return ImageStream.of(torch.from_numpy(images))

    row = judge.held_out(draw)
    assert row["prompt_accuracy_heldout"] == 1
    assert [row[name] for name in DECILES] == [1.0] * 9 + [0.0]
    captions = judge.captions("uniform", 150)
    spoiled = ((world.deciles[captions.kind] == 9) & captions.named).any(1)
    assert row["prompt_accuracy_uniform"] == pytest.approx(1 - spoiled.mean())
    assert row["prompt_accuracy_uniform_se"] > 0


def test_real_images_score_full_marks_and_a_floor(judge: SpritesJudge, tmp_path: Path) -> None:
    ((images, _),) = judge.real_images(80)
    scores = judge.test_scores(ImageStream.of(images), "autoencoder-kl")
    assert scores["prompt_accuracy"] == 1
    assert scores["verifier_probe_agreement"] > 0.97
    assert scores["fid"] == pytest.approx(scores["fid_floor"])
    assert scores["fid_network"].startswith("sprites-clip-")
    assert judge.reasons(images) == [""] * 80
    images[3] = 220
    assert judge.reasons(images)[3].startswith("count, kind, color, size")


def test_captions_are_read_as_users_type_them() -> None:
    dataset = opened("sprites80")
    text = dataset.world.text(dataset.world.draw("test", np.arange(1)), 0)
    assert dataset.read_condition(text).shape == (1, dataset.conditions.num_tokens)
