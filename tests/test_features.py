"""Features of a frozen network beside the tokens: cached, given to the loss, billed; and a paradigm that reads them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import EXPERIMENT
from spaces import CONDITIONS, FEATURED, LATENTS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.config.experiment import Method, Setting
from bench.config.tokenizers import TokenizerConfig
from bench.data.latents import Encoded, TrainingData, fill_cache
from bench.data.open import open_data
from bench.data.stream import about_stream, training_images
from bench.evaluate.validation import ValidationImages
from bench.flops.meter import FlopMeter
from bench.paradigm import FeatureSpace
from bench.plan.machine import Machine
from bench.plan.plan import make_plan
from bench.progress import Display
from bench.results.folder import Results
from bench.results.table import load_table
from bench.sweep.sweep import run_sweep
from bench.testing import shake
from paradigms.aligned_diffusion import AlignedDiffusion
from paradigms.diffusion import Diffusion

BACKBONE = BackboneConfig(width=32, depth=3, num_heads=2)
BOTH = "autoencoder-kl+autoencoder-fsq-latents"
BATCH = 8


def build(**options: object) -> AlignedDiffusion:
    torch.manual_seed(0)
    paradigm = AlignedDiffusion(BACKBONE, FEATURED, CONDITIONS, **options)
    shake(paradigm)
    return paradigm


def plain(paradigm: AlignedDiffusion) -> Diffusion:
    """Diffusion with the same weights."""
    other = Diffusion(BACKBONE, LATENTS, CONDITIONS)
    other.load_state_dict(paradigm.state_dict(), strict=False)
    return other


def batch(features: Tensor | None = None) -> tuple[Tensor, Condition]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(1, 14, (BATCH, CONDITIONS.num_tokens), generator=generator)
    features = FEATURED.features.example(BATCH, generator) if features is None else features
    return LATENTS.example(BATCH, generator), Condition.of(words, features)


def loss_of(paradigm: Diffusion, tokens: Tensor, condition: Condition) -> Tensor:
    torch.manual_seed(2)
    return paradigm.loss(tokens, condition)[0]


# -- the paradigm


def test_without_weight_it_is_diffusion() -> None:
    paradigm = build(weight=0.0)
    assert torch.equal(loss_of(paradigm, *batch()), loss_of(plain(paradigm), *batch()))


def test_features_that_are_the_hidden_state_are_aligned_to_one() -> None:
    """The loss is then that of diffusion less the weight; against their opposite, plus the weight."""
    paradigm = build(weight=0.5)
    paradigm.project = nn.Identity()
    tokens, condition = batch()
    torch.manual_seed(2)
    with paradigm._watched() as seen, torch.no_grad():
        Diffusion.loss(paradigm, tokens, condition)
    hidden = seen[0][:, CONDITIONS.num_tokens :]
    expected = loss_of(plain(paradigm), tokens, condition)
    for sign in (1, -1):
        found = loss_of(paradigm, tokens, replace(condition, features=sign * hidden))
        torch.testing.assert_close(found, expected - sign * 0.5, rtol=1e-5, atol=1e-6)


def test_the_block_a_third_up_is_aligned() -> None:
    """Of three blocks the first: what lies above learns nothing from the alignment."""
    paradigm = build()
    tokens, condition = batch()
    with paradigm._watched() as seen:
        Diffusion.loss(paradigm, tokens, condition)
    paradigm.alignment(seen[0][:, CONDITIONS.num_tokens :], condition.features).sum().backward()
    first, *above = paradigm.backbone.blocks
    assert all(parameter.grad is not None for parameter in first.parameters())
    assert all(parameter.grad is None for block in above for parameter in block.parameters())


def test_the_sampler_is_that_of_diffusion() -> None:
    paradigm = build().eval()
    _, condition = batch()
    settings = {"steps": 4, "guidance": 2.0, "temperature": 1.0}
    draws = [
        each.sample(Condition.of(condition.tokens), **settings, generator=torch.Generator().manual_seed(0))
        for each in (paradigm, plain(paradigm).eval())
    ]
    assert torch.equal(*draws)


def test_the_projection_and_the_frozen_network_are_billed() -> None:
    """Beside diffusion: three products of the projection per token, forward and backward, and the network once per image."""

    def bill(cls: type[Diffusion], space) -> int:
        with torch.device("meta"):
            meter = FlopMeter(cls(BACKBONE, space, CONDITIONS), CONDITIONS, "meta-v2")
        (count, *_) = meter.expected([0], BATCH)
        return count.dense

    width = BACKBONE.width
    projection = 3 * 2 * BATCH * LATENTS.num_tokens * (width * 2 * width + (2 * width) ** 2 + 2 * width * 6)
    assert bill(AlignedDiffusion, FEATURED) == bill(Diffusion, LATENTS) + projection + BATCH * FEATURED.features.flops


def test_spaces_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"AlignedDiffusion reads features beside its tokens; .*behind a \+"):
        AlignedDiffusion(BACKBONE, LATENTS, CONDITIONS)
    with pytest.raises(ValueError, match="Diffusion reads no features beside its tokens"):
        Diffusion(BACKBONE, FEATURED, CONDITIONS)
    coarse = replace(LATENTS, features=FeatureSpace(grid=2, channels=6, flops=0))
    with pytest.raises(ValueError, match="one vector per token, a grid of 4, not of 2"):
        AlignedDiffusion(BACKBONE, coarse, CONDITIONS)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        AlignedDiffusion(BACKBONE, FEATURED, CONDITIONS, weight=-1.0)


# -- the latent cache


def cache(folder: Path, num: int, about: dict[str, object] | None = None) -> Path:
    dataset = open_data("shapes32")
    about = dataset.about() | (about or {})
    fill_cache(folder, num, dataset.row_bytes(BOTH), dataset.encoder(BOTH), lambda _: None, chunk=dataset.chunk, about=about)
    return folder


def test_features_are_the_other_tokenizers_latents_of_the_same_images(tmp_path: Path) -> None:
    dataset = open_data("shapes32")
    data = TrainingData(cache(tmp_path, 48))
    images, _ = dataset.render_split(data.indices(0, 3, BATCH), "train")
    with torch.inference_mode():
        expected = dataset.tokenizer("autoencoder-fsq-latents").encode(torch.from_numpy(images)).chunk(2, dim=2)[0]
    tokens, _, features = data.batch(0, 3, BATCH)
    torch.testing.assert_close(features, expected, rtol=2e-3, atol=2e-3)
    assert features.std() > 0.5
    space = dataset.space(BOTH)
    assert tokens.shape[1:] == (space.num_tokens, space.channels)
    assert features.shape[1:] == (space.features.num_vectors, space.features.channels)
    stored = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert 0.9 < stored / (48 * dataset.row_bytes(BOTH)) < 1.1


def test_features_beyond_the_cache_are_those_that_it_would_hold(tmp_path: Path) -> None:
    whole = training_images(cache(tmp_path / "whole", 64))
    part = training_images(cache(tmp_path / "part", 24, about_stream(open_data("shapes32"), BOTH, 64)))
    for step in range(4):
        torch.testing.assert_close(part.batch(0, step, BATCH)[2], whole.batch(0, step, BATCH)[2], rtol=2e-3, atol=2e-3)


def test_features_are_of_the_view_that_is_drawn(tmp_path: Path) -> None:
    def encode(indices: range) -> Encoded:
        tokens, features = np.zeros((len(indices), 2, 3, 4), np.float16), np.zeros((len(indices), 2, 5, 2), np.float16)
        tokens[:, 1, :, :2] = features[:, 1] = 1.0  # the mirrored view
        return Encoded(tokens, np.zeros((len(indices), 1), np.int32), features=features)

    fill_cache(tmp_path, 64, 50, encode, lambda _: None, chunk=8)
    tokens, _, features = TrainingData(tmp_path).batch(0, 0, 64)
    assert torch.equal(tokens[:, 0, 0], features[:, 0, 0])
    assert set(features.flatten().tolist()) == {0.0, 1.0}


def test_validation_images_have_features_too() -> None:
    _, condition = ValidationImages(open_data("shapes32"), BOTH, 512).batch(0)
    assert condition.features.shape[1:] == (16, open_data("shapes32").space(BOTH).features.channels)
    assert ValidationImages(open_data("shapes32"), "autoencoder-kl", 512).batch(0)[1].features is None


def test_names_hashes_and_the_networks_cost() -> None:
    dataset = open_data("shapes32")
    assert dataset.tokenizer_config(BOTH) == TokenizerConfig(part="autoencoder-kl", features="autoencoder-fsq-latents")
    hashes = {dataset.tokenizer_hash(name) for name in (BOTH, "autoencoder-kl", "autoencoder-kl+pixels")}
    assert len(hashes) == 3
    assert "" not in hashes
    network = dataset.autoencoder("autoencoder-fsq")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.moments(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert dataset.space(BOTH).features.flops == network.encoder_flops() == counter.get_total_flops() > 0
    assert dataset.space("autoencoder-kl+pixels").features.flops == 0
    with pytest.raises(ValueError, match="'autoencoder-fsq' gives codes; features are latents"):
        dataset.space("autoencoder-kl+autoencoder-fsq")
    with pytest.raises(ValueError, match="unknown tokenizer 'nothing'"):
        dataset.space("autoencoder-kl+nothing")


# -- a sweep


def test_a_sweep_trains_on_features_and_bills_their_network(tmp_path: Path) -> None:
    method = Method(paradigm="aligned-diffusion", tokenizer=BOTH, learning_rates=(2e-3,), settings=(Setting(steps=4),))
    experiment = replace(EXPERIMENT, methods=(method,), rungs=(1.0,), num_seeds=((1,),), flop_rule="meta-v2", budget=3e9)
    dataset, results = open_data("shapes32"), Results(tmp_path / "results")
    plan = make_plan(experiment, 3_000_000_000, dataset, Machine("cpu", num_workers=1, num_threads=1))
    assert run_sweep(plan, results, dataset, Display()) == 0
    row = load_table(results.root).query("split == 'test'").iloc[0]
    assert row["tokenizer"] == f"{BOTH}@{dataset.tokenizer_hash(BOTH)}"
    assert row["flops_per_image"] == plan.runs[0].flops_per_image
    assert row["steps"] == pytest.approx(plan.runs[0].steps, abs=1)
    assert np.isfinite([row["validation_loss"], row["fid"]]).all()
