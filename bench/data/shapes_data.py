"""The shapes world as tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.conditioning import ConditionSpace
from bench.config.tokenizers import AutoencoderConfig, PixelConfig
from bench.data.shapes_render import render_split
from bench.data.shapes_world import SHAPES32, SHAPES64, ShapesWorld
from bench.data.world_data import TokenizedWorld, WorldSplit
from bench.errors import nearest

SHAPES_WORLDS = {config.name: config for config in (SHAPES32, SHAPES64)}


class TokenizedShapes(TokenizedWorld):
    """Everything of a shapes world that a run needs."""

    family = "shapes"

    def __init__(self, world: str) -> None:
        if world not in SHAPES_WORLDS:
            raise ValueError(f"unknown shapes world {world!r}; {nearest(world, list(SHAPES_WORLDS))}")
        self.world = ShapesWorld(SHAPES_WORLDS[world])
        self.name, self.fingerprint = self.world.config.name, self.world.fingerprint
        self.resolution = self.world.config.resolution
        self.generator_version = self.world.config.generator_version
        twin = AutoencoderConfig(bottleneck="kl", resolution=self.resolution)
        self.autoencoder_configs = {
            "autoencoder-kl": twin,
            "autoencoder-fsq": AutoencoderConfig(bottleneck="fsq", resolution=self.resolution),
            "pixels": PixelConfig(resolution=self.resolution, patch=twin.patch),
        }

    @property
    def conditions(self) -> ConditionSpace:
        tokens = self.world.caption_tokens
        return ConditionSpace(num_tokens=tokens.shape[1], vocabulary=len(self.world.vocabulary))

    def read_condition(self, text: str) -> Tensor:
        return torch.from_numpy(self.world.tokenize(text)).view(1, -1)

    def render_split(self, indices: np.ndarray, split: WorldSplit) -> tuple[np.ndarray, np.ndarray]:
        images, ids = render_split(self.world, split, indices)
        return images, self.world.caption_tokens[ids]
