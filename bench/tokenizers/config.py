"""Sizes of the twin autoencoders, apart from the networks so that planning imports neither."""

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

    @property
    def space(self) -> TokenSpace:
        """What the paradigms read."""
        if self.bottleneck == "fsq":
            return TokenSpace(kind="codes", grid=self.grid, vocabulary=math.prod(self.levels))
        return TokenSpace(kind="latents", grid=self.grid, channels=self.channels)
