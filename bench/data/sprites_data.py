"""The sprites world as tokens: the same three autoencoders for all levels, since a field looks alike on every sheet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.conditioning import ConditionSpace
from bench.config.tokenizers import TOKENIZERS, AutoencoderConfig, PixelConfig, TokenizerConfig
from bench.data.sprites_config import SPRITES40, SPRITES80, SPRITES160, SpritesConfig
from bench.data.sprites_render import render_split
from bench.data.sprites_world import SpritesWorld
from bench.data.world_data import WEIGHTS, TokenizedWorld, WorldSplit
from bench.errors import nearest
from bench.tokenizers.autoencoder import Autoencoder
from bench.tokenizers.base import ImageAutoencoder

SPRITES_WORLDS = {config.name: config for config in (SPRITES40, SPRITES80, SPRITES160)}
SHARED_NETWORKS = ("autoencoder-kl", "autoencoder-fsq", "autoencoder-scales", "probe")
"""Networks that look at a field and its neighbors, whatever the sheet: trained once for all levels."""
TOKENS_PER_FIELD_SIDE = 2
TWINS = ("kl", "fsq", "scales")


def autoencoder_config(config: SpritesConfig, twin: str) -> AutoencoderConfig:
    """Sizes of a twin, "kl", "fsq" or "scales": 2 x 2 tokens per field, small enough to ship. Scales double up to the grid."""
    assert twin in TWINS
    grid = TOKENS_PER_FIELD_SIDE * config.fields_per_side
    return AutoencoderConfig(
        bottleneck="kl" if twin == "kl" else "fsq",
        scales=tuple(2**power for power in range(grid.bit_length())) if twin == "scales" else (),
        resolution=config.resolution,
        patch=config.field_pixels // TOKENS_PER_FIELD_SIDE,
        width=96,
        levels=(8, 8, 4, 4),
        period=TOKENS_PER_FIELD_SIDE,
    )


class TokenizedSprites(TokenizedWorld):
    """Everything of a level of the sprites world that a run needs."""

    family = "sprites"
    tokenizer_configs = {**TOKENIZERS, "autoencoder-scales": TokenizerConfig(part="autoencoder-scales")}

    def __init__(self, world: str) -> None:
        if world not in SPRITES_WORLDS:
            raise ValueError(f"unknown sprites world {world!r}; {nearest(world, list(SPRITES_WORLDS))}")
        self.world = SpritesWorld(SPRITES_WORLDS[world])
        config = self.world.config
        self.name, self.fingerprint, self.resolution = config.name, self.world.fingerprint, config.resolution
        self.generator_version = config.generator_version
        twins = {f"autoencoder-{name}": autoencoder_config(config, name) for name in TWINS}
        pixels = PixelConfig(resolution=config.resolution, patch=twins["autoencoder-kl"].patch)
        self.autoencoder_configs = {**twins, "pixels": pixels}

    def weights_file(self, network: str) -> Path:
        if network in SHARED_NETWORKS:
            return WEIGHTS / f"sprites-v{self.generator_version}" / f"{network}.safetensors"
        return super().weights_file(network)

    def autoencoder(self, name: str) -> ImageAutoencoder:
        """The shared weights on this level's grid: no parameter knows its size."""
        trained = super().autoencoder(name)
        if not isinstance(trained, Autoencoder):
            return trained
        own = self.autoencoder_config(name)
        assert isinstance(own, AutoencoderConfig)
        model = Autoencoder(replace(trained.config, resolution=self.resolution, scales=own.scales))
        model.load_state_dict(trained.state_dict())
        return model.eval().requires_grad_(False)

    @property
    def conditions(self) -> ConditionSpace:
        return ConditionSpace(num_tokens=self.world.num_words, vocabulary=len(self.world.vocabulary))

    def read_condition(self, text: str) -> Tensor:
        return torch.from_numpy(self.world.tokens(self.world.parse(text)))

    def render_split(self, indices: np.ndarray, split: WorldSplit) -> tuple[np.ndarray, np.ndarray]:
        images, captions = render_split(self.world, split, indices)
        return images, self.world.tokens(captions)
