"""Sizes of the twin autoencoders and the tokens read from them, apart from the networks so that planning imports neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.paradigm import TokenSpace


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of one twin; the pair differs in `bottleneck` alone."""

    bottleneck: Literal["kl", "fsq"]
    resolution: int = 32
    patch: int = 8
    width: int = 128
    num_decoder_blocks: int = 3
    channels: int = 16
    """Continuous latent channels per token (kl)."""
    levels: tuple[int, ...] = (8, 4, 4, 4)
    """Quantization levels per channel (fsq); their product, 512, is the number of codes (Mentzer et al. 2023)."""

    @property
    def grid(self) -> int:
        return self.resolution // self.patch


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokens of an autoencoder a method reads."""

    part: Literal["autoencoder-kl", "autoencoder-fsq"]
    before_quantization: bool = False
    """The discrete autoencoder's latents before they are quantized (Li et al. 2024, table 2, first row); decoding quantizes."""
    group: int = 1
    """group x group neighbors become one token with group^2 times the channels, for autoencoders of a smaller stride (table 2,
    KL-8)."""

    def space(self, autoencoder: AutoencoderConfig) -> TokenSpace:
        """What the paradigms read."""
        grid = autoencoder.grid // self.group
        if autoencoder.bottleneck == "fsq" and not self.before_quantization:
            return TokenSpace(kind="codes", grid=grid, vocabulary=math.prod(autoencoder.levels))
        channels = autoencoder.channels if autoencoder.bottleneck == "kl" else len(autoencoder.levels)
        return TokenSpace(kind="latents", grid=grid, channels=channels * self.group**2)


TOKENIZERS = {
    "autoencoder-kl": TokenizerConfig(part="autoencoder-kl"),
    "autoencoder-fsq": TokenizerConfig(part="autoencoder-fsq"),
    "autoencoder-fsq-latents": TokenizerConfig(part="autoencoder-fsq", before_quantization=True),
    "autoencoder-kl-grouped": TokenizerConfig(part="autoencoder-kl", group=2),
}
