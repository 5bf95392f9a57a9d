"""Patches of raw pixels as latents, on the grid of the autoencoders, so that methods without one have as many tokens.

Letters: B images, N tokens, C values of a patch, P patch side, H resolution.

Values lie between -1 and 1 and are not whitened, as in JiT (Li & He 2025). The round trip is exact, also through the float16
of the latent cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.config.tokenizers import PixelConfig
from bench.tokenizers.base import ImageAutoencoder


class Pixels(ImageAutoencoder):
    """The identity behind the interface of an autoencoder."""

    config: PixelConfig

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        patches = to_patches(images.float() / 127.5 - 1.0, self.config.patch)
        return patches, torch.zeros_like(patches)

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("pixels have no codes")

    def lookup(self, codes: Tensor) -> Tensor:
        raise NotImplementedError("pixels have no codes")

    def decode_raw(self, latents: Tensor) -> Tensor:
        return from_patches(latents, self.config.patch)


def to_patches(images: Tensor, side: int) -> Tensor:
    """Images (B, 3, H, H) to patches (B, N, 3 P P) in raster order, each by channel, row and column."""
    grid = images.shape[-1] // side
    x = images.unflatten(3, (grid, side)).unflatten(2, (grid, side))  # (B, 3, g, P, g, P)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def from_patches(patches: Tensor, side: int) -> Tensor:
    """The inverse of `to_patches`: (B, N, 3 P P) to (B, 3, H, H)."""
    grid = round(patches.shape[1] ** 0.5)
    x = patches.unflatten(2, (3, side, side)).unflatten(1, (grid, grid))
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
