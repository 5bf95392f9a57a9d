"""What paradigms read of an image: an autoencoder's latents or codes, perhaps before quantization, perhaps grouped.

Letters: B images, N tokens, C latent channels, H resolution.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.config.tokenizers import AutoencoderConfig, ImageAutoencoderConfig, PluginConfig, TokenizerConfig
from bench.paradigm import TokenSpace
from bench.tokenizers.base import ImageAutoencoder
from bench.tokenizers.plugin import plugin_class
from bench.tokenizers.residual import code_vectors


def token_space(config: TokenizerConfig, autoencoder: ImageAutoencoderConfig) -> TokenSpace:
    """What the paradigms read, known without the autoencoder's weights.

    Raises:
        ValueError: when the grid cannot be grouped, or codes would be.
    """
    discrete = autoencoder.num_codes > 0 and not config.before_quantization
    if autoencoder.grid % config.group or (discrete and config.group > 1):
        raise ValueError(
            f"tokenizer {config.part!r}: group={config.group} must divide the grid of {autoencoder.grid} and needs latents"
        )
    grid = autoencoder.grid // config.group
    if discrete:
        codes = TokenSpace(kind="codes", grid=grid, vocabulary=autoencoder.num_codes)
        if isinstance(autoencoder, AutoencoderConfig):
            return replace(codes, scales=autoencoder.scales, code_vectors=code_vectors(autoencoder.levels))
        if isinstance(autoencoder, PluginConfig) and autoencoder.scales:
            return replace(codes, scales=autoencoder.scales, code_vectors=plugin_class(autoencoder.name).code_vectors())
        return codes
    return TokenSpace(kind="latents", grid=grid, channels=autoencoder.num_channels * config.group**2)


class Tokenizer(nn.Module):
    """Images (B, 3, H, H) uint8 to tokens and back."""

    def __init__(self, autoencoder: ImageAutoencoder, config: TokenizerConfig, features: Tokenizer | None = None) -> None:
        """features: whose latents are features beside the tokens."""
        super().__init__()
        self.features = features
        self.autoencoder, self.group = autoencoder, config.group
        self.discrete = autoencoder.discrete and not config.before_quantization
        self.space = token_space(config, autoencoder.config)

    def encode(self, images: Tensor) -> Tensor:
        """What the latent cache stores: whitened moments (B, N, 2C) float32, or codes (B, N) int64."""
        if self.discrete:
            return self.autoencoder.encode_codes(images)
        moments = self.autoencoder.encode_moments(images)
        return torch.cat([self._grouped(part) for part in moments.chunk(2, dim=2)], dim=2)

    def frozen_features(self, images: Tensor) -> Tensor | None:
        """Features (B, P, F) float32 of images (B, 3, H, H): whitened latents at their mean; None where there are none."""
        return None if self.features is None else self.features.encode(images).chunk(2, dim=2)[0]

    def decode(self, tokens: Tensor) -> Tensor:
        """Whitened latents (B, N, C) or codes (B, N) to images."""
        return self.autoencoder.decode(tokens if self.discrete else self._ungrouped(tokens))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, H) through the tokens and back, at the posterior mean."""
        stored = self.encode(images)
        return self.decode(stored if self.discrete else stored.chunk(2, dim=2)[0])

    def _grouped(self, x: Tensor) -> Tensor:
        """(B, n, c) on the autoencoder's grid to (B, N, C), the channels of a group in raster order."""
        side, k = self.space.grid, self.group
        return x.unflatten(1, (side, k, side, k)).permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)

    def _ungrouped(self, x: Tensor) -> Tensor:
        side, k = self.space.grid, self.group
        return x.unflatten(2, (k, k, -1)).unflatten(1, (side, side)).permute(0, 1, 3, 2, 4, 5).flatten(1, 4)
