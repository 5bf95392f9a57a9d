"""Sizes of the image autoencoders and the tokens read from them, apart from the networks so that planning imports neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of one of the suite's own twins; the pair differs in `bottleneck` alone."""

    bottleneck: Literal["kl", "fsq"]
    resolution: int = 32
    patch: int = 8
    width: int = 128
    num_decoder_blocks: int = 3
    channels: int = 16
    """Continuous latent channels per token (kl)."""
    levels: tuple[int, ...] = (8, 4, 4, 4)
    """Quantization levels per channel (fsq); their product, 512, is the number of codes (Mentzer et al. 2023)."""
    period: int = 1
    """Side, in tokens, of the fields that images are made of. Tokens know their place in their field, so that those of a field
    can divide among them what they say. 1: none."""
    scales: tuple[int, ...] = ()
    """Sides of the grids that an image's codes are made of (fsq), coarse to fine up to `grid`; each explains what the coarser
    ones leave (Tian et al. 2024, section 3.2). Empty: one grid."""

    @property
    def grid(self) -> int:
        """Side of the token grid."""
        return self.resolution // self.patch

    @property
    def num_channels(self) -> int:
        """Channels of the latents, before quantization where there is one."""
        return self.channels if self.bottleneck == "kl" else len(self.levels)

    @property
    def num_codes(self) -> int:
        """Codes of the discrete twin; 0 for the continuous one."""
        return math.prod(self.levels) if self.bottleneck == "fsq" else 0


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """An autoencoder with published weights. Its sizes are stated, so that planning needs none, and checked when it loads."""

    architecture: Literal["AutoencoderKL", "AutoencoderDC", "ConsistencyDecoderVAE", "VQModel", "mar-kl16", "llamagen-vq16"]
    """A class of diffusers, or the checkpoint format of Li et al. 2024 or of Sun et al. 2024 (LlamaGen)."""
    source: str
    """Name on the Hugging Face hub, or a folder; for the two checkpoints a file."""
    stride: int
    """Pixels per latent position and side."""
    num_channels: int
    """Channels of the latents, before quantization where there is one."""
    num_codes: int = 0
    """Size of the codebook; 0 for continuous latents."""
    sha256: str = ""
    """First digits that the weights' SHA-256 must have; empty accepts any and records it."""
    resolution: int = 256

    @property
    def grid(self) -> int:
        """Side of the latent grid."""
        return self.resolution // self.stride


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """Patches of raw pixels where others have an autoencoder's latents: no weights, and nothing is lost."""

    resolution: int
    patch: int
    num_codes: ClassVar[int] = 0

    @property
    def grid(self) -> int:
        """Side of the grid of patches."""
        return self.resolution // self.patch

    @property
    def num_channels(self) -> int:
        """Values of a patch."""
        return 3 * self.patch**2


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """Sizes of another package's autoencoder (bench/tokenizers/plugin.py) at a resolution."""

    name: str
    """Of its entry point."""
    resolution: int
    grid: int
    """Side of the token grid."""
    num_channels: int
    """Channels of the latents, before quantization where there is one."""
    num_codes: int = 0
    """Size of the codebook; 0 for continuous latents."""
    scales: tuple[int, ...] = ()
    """Sides of the square grids that the codes are made of, coarse to fine, the last being `grid`; empty for one grid."""


ImageAutoencoderConfig = AutoencoderConfig | PretrainedConfig | PixelConfig | PluginConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokens of an autoencoder a method reads."""

    part: str
    """Name of the autoencoder."""
    before_quantization: bool = False
    """The discrete autoencoder's latents before they are quantized (Li et al. 2024, table 2, first row); decoding quantizes."""
    group: int = 1
    """group x group neighbors become one token with group^2 times the channels, for autoencoders of a smaller stride (table 2,
    KL-8)."""
    features: str = ""
    """Name of a tokenizer whose latents, at their mean, the latent cache keeps beside the tokens: features of a frozen network. A
    tokenizer called "a+b" has the tokens of a and the features of b."""


def split_features(name: str) -> tuple[str, str]:
    """The tokenizers of tokens and of features that a name "a+b" means; the second is empty where there are no features."""
    tokens, _, features = name.partition("+")
    return tokens, features


TOKENIZERS = {
    "autoencoder-kl": TokenizerConfig(part="autoencoder-kl"),
    "autoencoder-fsq": TokenizerConfig(part="autoencoder-fsq"),
    "autoencoder-fsq-latents": TokenizerConfig(part="autoencoder-fsq", before_quantization=True),
    "autoencoder-kl-grouped": TokenizerConfig(part="autoencoder-kl", group=2),
    "pixels": TokenizerConfig(part="pixels"),
}
"""Of the procedural worlds."""
