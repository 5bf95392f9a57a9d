"""Raw pixels as tokens, and the image as what diffusion predicts from them (JiT): exact round trips and known answers."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from spaces import CONDITIONS, LATENTS
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.config import ImageData, PixelConfig
from bench.data.latents import TrainingData, fill_cache
from bench.data.open import open_data
from bench.paradigm import TokenSpace
from bench.testing import shake
from paradigms.diffusion import LEAST_TIME, Diffusion, PixelDiffusion

BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)


def build(cls: type[Diffusion] = Diffusion, **options) -> Diffusion:
    torch.manual_seed(0)
    return cls(BACKBONE, LATENTS, CONDITIONS, **options)


def conditions(size: int) -> Condition:
    return Condition.of(torch.randint(1, 14, (size, CONDITIONS.num_tokens), generator=torch.Generator().manual_seed(1)))


# -- the tokenizer


@pytest.mark.parametrize(("world", "channels"), [("shapes32", 192), ("sprites40", 300)])
def test_pixels_survive_the_latent_cache(world: str, channels: int, tmp_path: Path) -> None:
    """Rendered, encoded, cached in float16, read by a training step and decoded: the same bytes, on the autoencoders' grid."""
    dataset = open_data(world)
    space = dataset.space("pixels")
    assert (space.grid, space.channels) == (dataset.space("autoencoder-kl").grid, channels)
    assert dataset.tokenizer_hash("pixels")
    fill_cache(tmp_path, 32, dataset.row_bytes("pixels"), dataset.encoder("pixels"), lambda _: None, chunk=32)
    data = TrainingData(tmp_path)
    tokens = data.batch(seed=0, step=0, batch=16)[0]
    rendered, _ = dataset.render_split(data.indices(0, 0, 16), "train")
    assert tokens.shape == (16, space.num_tokens, channels)
    assert float(tokens.abs().max()) <= 1
    decoder = dataset.tokenizer("pixels")
    assert np.array_equal(decoder.decode(tokens).numpy(), rendered)
    assert torch.equal(decoder.reconstruct(torch.from_numpy(rendered)), torch.from_numpy(rendered))
    assert decoder.autoencoder.decoder_flops() == 0


def test_tokens_are_patches_in_raster_order() -> None:
    dataset = open_data("shapes32")
    images = torch.from_numpy(dataset.render_split(np.arange(4), "train")[0])
    tokens = dataset.tokenizer("pixels").encode(images).chunk(2, dim=2)[0]
    patch = images[:, :, 8:16, 24:32].flatten(1)  # second row, fourth column
    torch.testing.assert_close(tokens[:, 7], patch.float() / 127.5 - 1)


def test_image_data_may_have_pixels() -> None:
    pixels = {"p": PixelConfig(resolution=8, patch=2)}
    data = ImageData(name="n", source="digits", condition="class", num_classes=10, resolution=8, autoencoders=pixels)
    assert ImageData.from_dict(json.loads(json.dumps(asdict(data)))) == data
    dataset = open_data(data)
    assert (dataset.space("p").grid, dataset.space("p").channels) == (4, 12)
    assert dataset.tokenizer_hash("p") != open_data(replace(data, resolution=16)).tokenizer_hash("p") != ""


# -- the prediction


def test_the_loss_on_velocities_is_a_weighted_loss_on_images() -> None:
    """|v - v'|^2 = |x - x'|^2 / t^2, and / .05^2 below .05; v' = (x_t - x') / t leads from the prediction x' to x_t."""
    paradigm, tokens = build(prediction="image", time_shift=0.2), LATENTS.example(512)
    shake(paradigm)
    predicted: list[Tensor] = []
    paradigm.head.register_forward_hook(lambda module, inputs, output: predicted.append(output.detach()))
    torch.manual_seed(3)
    loss = paradigm.loss(tokens, conditions(512))[0].detach()
    torch.manual_seed(3)
    t = paradigm.shift_time(torch.sigmoid(torch.randn(512)))
    noise = torch.randn_like(tokens)
    assert 0.05 < float((t < LEAST_TIME).float().mean()) < 0.5
    images = (predicted[0] - tokens).square().mean((1, 2))
    torch.testing.assert_close(loss, images / t.clamp_min(LEAST_TIME) ** 2, rtol=1e-3, atol=1e-5)
    late = t > LEAST_TIME
    mixed = tokens + t[:, None, None] * (noise - tokens)
    velocities = (mixed - predicted[0]) / t[:, None, None] - (noise - tokens)
    torch.testing.assert_close(loss[late], velocities[late].square().mean((1, 2)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_the_exact_image_leads_to_the_gaussian(sampler: str) -> None:
    """For latents N(0, s^2) the best image is linear, (1 - t) s^2 / ((1 - t)^2 s^2 + t^2) x_t; samples then have the spread s,
    but for what the divisor's floor takes: below .05 the spread grows more slowly."""
    spread, paradigm = 0.5, build(PixelDiffusion, sampler=sampler)

    def factor(t: float) -> float:
        return (1 - t) * spread**2 / ((1 - t) ** 2 * spread**2 + t**2)

    class Exact(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x

    exact = Exact()
    predict = paradigm.predict

    def with_times(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        exact.factor = factor(float(t[0]))
        return predict(x, t, condition)

    paradigm.predict = with_times
    paradigm.embed_tokens = torch.nn.ConstantPad1d((0, BACKBONE.width - LATENTS.channels), 0.0)  # the head finds x_t there
    paradigm.positions = torch.nn.Parameter(torch.zeros(LATENTS.num_tokens, BACKBONE.width))
    paradigm.backbone.forward = lambda sequence, vector: sequence
    paradigm.head = torch.nn.Sequential(Keep(LATENTS.channels), exact)
    settings = {"steps": 400, "guidance": 1.0, "temperature": 1.0}
    with torch.no_grad():
        drawn = paradigm.sample(conditions(256), **settings, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0))
    late = (np.arange(1000) + 0.5) / 1000 * LEAST_TIME
    growth = math.exp(float(np.mean([factor(t) - 1 for t in late])))
    expected = growth * math.hypot((1 - LEAST_TIME) * spread, LEAST_TIME)
    assert expected == pytest.approx(spread, rel=0.03)
    torch.testing.assert_close(drawn, expected * noise, rtol=5e-3, atol=1e-4)


class Keep(torch.nn.Module):
    """The first channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.channels]


def test_a_narrow_network_finds_images_but_no_velocities() -> None:
    """The paper's toy (Li & He 2025): data on a circle in a plane of 256 dimensions, and a network of width 32. Predicted images
    reach the plane; velocities hold noise of all dimensions, which no layer can carry."""
    space = TokenSpace(kind="latents", grid=1, channels=256)
    plane = torch.linalg.qr(torch.randn(256, 2, generator=torch.Generator().manual_seed(0)))[0]
    condition, distance = conditions(1)[torch.zeros(64, dtype=torch.int64)], {}
    for prediction in ("image", "velocity"):
        torch.manual_seed(1)
        paradigm = PixelDiffusion(BACKBONE, space, CONDITIONS, prediction=prediction, time_shift=1.0)
        optimizer = torch.optim.AdamW(paradigm.parameters(), lr=3e-3)
        for _ in range(150):
            angle = 2 * math.pi * torch.rand(64)
            circle = torch.stack([angle.cos(), angle.sin()], dim=1) @ plane.T
            optimizer.zero_grad()
            paradigm.loss(circle[:, None], condition)[0].mean().backward()
            optimizer.step()
        with torch.no_grad():
            settings = {"steps": 32, "guidance": 1.0, "temperature": 1.0}
            drawn = paradigm.sample(condition, **settings, generator=torch.Generator().manual_seed(0))[:, 0]
        distance[prediction] = float((drawn - drawn @ plane @ plane.T).norm(dim=1).mean())
    assert distance["image"] < 1  # of the noise's 16; measured .2
    assert distance["velocity"] > 8  # measured 15


def test_velocity_stays_what_diffusion_predicts() -> None:
    tokens = LATENTS.example(8)
    losses = []
    for options in ({}, {"prediction": "velocity"}, {"prediction": "image"}):
        paradigm = build(**options)
        shake(paradigm)
        torch.manual_seed(0)
        losses.append(paradigm.loss(tokens, conditions(8))[0])
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_pixel_diffusion_is_diffusion_with_other_defaults() -> None:
    """Times are logit-normal around .8."""
    paradigm = build(PixelDiffusion)
    shifted = paradigm.shift_time(torch.sigmoid(torch.randn(50_000)))
    assert float(torch.logit(shifted).mean()) == pytest.approx(0.8, abs=0.02)
    same = build(prediction="image", time_shift=2.2255, guidance_interval=(0.0, 0.9))
    losses = []
    for each in (paradigm, same):
        shake(each)
        torch.manual_seed(0)
        losses.append(each.loss(LATENTS.example(8, torch.Generator().manual_seed(0)), conditions(8))[0])
    assert torch.equal(*losses)


def test_noise_and_image_cannot_both_be_predicted() -> None:
    with pytest.raises(ValueError, match="needs objective='flow'"):
        build(objective="ddpm", prediction="image")
