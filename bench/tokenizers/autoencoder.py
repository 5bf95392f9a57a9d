"""The twin image autoencoders: one trunk, a continuous (KL) or a discrete (FSQ) bottleneck on the same token grid, the latter of
one scale or of several.

Letters: B images, N tokens, C latent channels, D trunk width, P patch side, H resolution.

The trunk's weights differ between the twins; its shape, data and training do not.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.config.tokenizers import AutoencoderConfig
from bench.tokenizers.base import ImageAutoencoder
from bench.tokenizers.pixels import from_patches, to_patches
from bench.tokenizers.residual import ResidualQuantizer


class ResidualMLP(nn.Module):
    """x + MLP(LayerNorm(x)) over the last axis, expansion 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return x + self.layers(x)


class GridConvolution(nn.Module):
    """x + 3x3 convolution over the token grid: lets neighboring patches agree on what crosses their seam."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) in raster order to (B, N, D)."""
        image = x.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return x + F.gelu(self.convolution(image)).flatten(2).transpose(1, 2)


class PlaceInField(nn.Module):
    """x + a learned vector per place in a field of tokens: the fields repeat over the grid."""

    def __init__(self, width: int, grid: int, period: int) -> None:
        super().__init__()
        self.repeats = grid // period
        self.vectors = nn.Parameter(0.3 * torch.randn(period, period, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) in raster order to (B, N, D)."""
        return x + self.vectors.repeat(self.repeats, self.repeats, 1).flatten(0, 1)


class Autoencoder(ImageAutoencoder):
    """Patch encoder, bottleneck, patch decoder.

    Encoder and decoder both mix neighboring patches by one and two convolutions: without the encoder's, every paradigm learned
    its tokens more slowly (docs/log.md).
    """

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        c, pixels = config, 3 * config.patch**2
        bottleneck = c.num_channels if self.discrete else 2 * c.num_channels

        def place() -> tuple[nn.Module, ...]:
            return (PlaceInField(c.width, c.grid, c.period),) if c.period > 1 else ()

        self.encoder = nn.Sequential(
            nn.Linear(pixels, c.width),
            *place(),
            ResidualMLP(c.width),
            GridConvolution(c.width, c.grid),
            ResidualMLP(c.width),
            nn.LayerNorm(c.width),
            nn.Linear(c.width, bottleneck),
        )
        self.decoder = nn.Sequential(
            nn.Linear(c.num_channels, c.width),
            *place(),
            GridConvolution(c.width, c.grid),
            ResidualMLP(c.width),
            GridConvolution(c.width, c.grid),
            *(ResidualMLP(c.width) for _ in range(c.num_decoder_blocks - 1)),
            nn.LayerNorm(c.width),
            nn.Linear(c.width, pixels),
        )
        self.quantizer = None
        if self.discrete:
            from vector_quantize_pytorch import FSQ  # imported late: takes seconds, and planning builds no autoencoder

            self.quantizer = ResidualQuantizer(c.levels, c.scales) if c.scales else FSQ(levels=list(c.levels))

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.encode_raw(images)
        if self.discrete:
            return raw, torch.zeros_like(raw)
        mean, log_variance = raw.chunk(2, dim=2)
        return mean, (0.5 * log_variance.clamp(-20.0, 10.0)).exp()

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        assert self.quantizer is not None
        quantized, codes = self.quantizer(latents)
        return quantized, codes.long()

    def lookup(self, codes: Tensor) -> Tensor:
        assert self.quantizer is not None
        return self.quantizer.indices_to_codes(codes)

    def encode_raw(self, images: Tensor) -> Tensor:
        """uint8 images to the encoder's unwhitened output (B, N, 2C) or (B, N, len(levels))."""
        return self.encoder(to_patches(images.float() / 127.5 - 1.0, self.config.patch))

    def decode_raw(self, latents: Tensor) -> Tensor:
        return from_patches(self.decoder(latents), self.config.patch)

    def save(self, path: Path) -> None:
        """Write weights with the configuration in the file's metadata (safetensors)."""
        save_file(self.state_dict(), path, metadata={"config": json.dumps(asdict(self.config))})

    @classmethod
    def load(cls, path: Path) -> Autoencoder:
        """Read a file written by `save`; the model is frozen and in eval mode.

        Raises:
            FileNotFoundError: when the file is missing.
        """
        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
        tuples = {name: tuple(config.get(name, ())) for name in ("levels", "scales")}
        model = cls(AutoencoderConfig(**{**config, **tuples}))
        model.load_state_dict(load_file(path))
        return model.eval().requires_grad_(False)
