"""The conformance test of another package's autoencoder: `check_tokenizer(cls, resolution)`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.config.tokenizers import PluginConfig
from bench.errors import first_line
from bench.paradigm import TokenSpace
from bench.tokenizers.plugin import PluginAutoencoder

NUM_IMAGES = 4
CLOSE = 1e-3
"""Difference, over the latents' deviation, up to which two encodings of an image are one."""


def check_tokenizer(cls: type[PluginAutoencoder], resolution: int) -> list[str]:
    """Everything that a tokenizer gets wrong at a resolution, a sentence each; empty when it conforms. Any exception is one."""
    try:
        return list(_findings(cls, resolution))
    except Exception as error:
        return [f"{type(error).__name__}: {first_line(error)}"]


@torch.inference_mode()
def _findings(cls: type[PluginAutoencoder], resolution: int) -> Iterator[str]:
    config = cls.sizes(resolution)
    if not cls.weights_hash() or cls.weights_hash() != cls.weights_hash():
        yield "weights_hash must name the weights, the same at every call"
    model = cls.load(config).eval().requires_grad_(False)
    images = torch.randint(256, (NUM_IMAGES, 3, resolution, resolution), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    wrong = list(_latents(model, config, images))
    yield from wrong
    if not wrong:
        yield from _codes(model, config, images) if config.num_codes else ()
        yield from _decoding(model, config, images)


def _latents(model: PluginAutoencoder, config: PluginConfig, images: Tensor) -> Iterator[str]:
    """Shapes, finite values, and each image by itself."""
    shape = (NUM_IMAGES, config.grid**2, config.num_channels)
    mean, std = model.moments(images)
    for name, found in (("mean", mean), ("standard deviation", std)):
        if found.shape != shape or found.dtype != torch.float32 or not found.isfinite().all():
            yield f"moments must give a finite float32 {name} {shape}, not {found.dtype} {tuple(found.shape)}"
            return
    if (std < 0).any():
        yield "a standard deviation of the latents is negative"
    alone = torch.cat([model.moments(image[None])[0] for image in images])
    if not (alone - mean).abs().max() <= CLOSE * mean.std():
        yield "an image's latents differ alone and in a batch; no image may see another"
    if mean.std() == 0 or torch.equal(mean[0], mean[1]):
        yield "two different images have the same latents"


def _codes(model: PluginAutoencoder, config: PluginConfig, images: Tensor) -> Iterator[str]:
    """Codes in their range, and the way back to the quantized latents."""
    quantized, codes = model.quantize(model.moments(images)[0])
    space = TokenSpace(kind="codes", grid=config.grid, vocabulary=config.num_codes, scales=config.scales)
    shape = (NUM_IMAGES, space.num_tokens)
    if codes.shape != shape or codes.dtype != torch.int64:
        yield f"codes must be int64 {shape}, not {codes.dtype} {tuple(codes.shape)}"
        return
    if codes.min() < 0 or codes.max() >= config.num_codes:
        yield f"codes must be 0 to {config.num_codes - 1}, not {int(codes.min())} to {int(codes.max())}"
        return
    if not torch.allclose(model.lookup(codes), quantized, atol=1e-5):
        yield "lookup of the codes is not what quantize gives"
    if config.scales:  # a sum of grids may be that of other codes too
        vectors = model.code_vectors()
        if vectors.dtype != torch.float32 or vectors.ndim != 2 or len(vectors) != config.num_codes:
            yield f"code_vectors must be float32 ({config.num_codes}, channels), not {vectors.dtype} {tuple(vectors.shape)}"
    elif not torch.equal(model.quantize(quantized)[1], codes):
        yield "quantized latents have other codes than the latents that they came from"


def _decoding(model: PluginAutoencoder, config: PluginConfig, images: Tensor) -> Iterator[str]:
    """Images of the same size from tokens, and a cost that can be counted."""
    latents = model.moments(images)[0]
    pixels = model.decode_raw(model.quantize(latents)[0] if config.num_codes else latents)
    if pixels.shape != images.shape or not pixels.is_floating_point() or not pixels.isfinite().all():
        yield f"decode_raw must give finite pixels {tuple(images.shape)}, not {pixels.dtype} {tuple(pixels.shape)}"
    if model.decoder_flops() < 0:
        yield "the decoder's FLOPs are negative"
