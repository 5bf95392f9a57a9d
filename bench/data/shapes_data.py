"""A procedural world as tokens: its renders, and the suite's own autoencoders, shipped and hashed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.conditioning import ConditionSpace
from bench.config.tokenizers import TOKENIZERS, AutoencoderConfig
from bench.data.base import TokenizedData
from bench.data.latents import Encoded
from bench.data.shapes_render import render_split
from bench.data.shapes_world import SHAPES32, SHAPES64, ShapesWorld, Split
from bench.errors import nearest

WORLDS = {config.name: config for config in (SHAPES32, SHAPES64)}


class TokenizedShapes(TokenizedData):
    """Everything of a world that a run needs."""

    views, chunk = 1, 2048
    tokenizer_configs = TOKENIZERS

    def __init__(self, world: str) -> None:
        if world not in WORLDS:
            raise ValueError(f"unknown procedural world {world!r}; {nearest(world, list(WORLDS))}")
        self.world = ShapesWorld(WORLDS[world])
        self.name, self.fingerprint = self.world.config.name, self.world.fingerprint
        self.resolution = self.world.config.resolution
        self.autoencoder_configs = {
            "autoencoder-kl": AutoencoderConfig(bottleneck="kl", resolution=self.resolution),
            "autoencoder-fsq": AutoencoderConfig(bottleneck="fsq", resolution=self.resolution),
        }

    @property
    def folder(self) -> Path:
        return Path(__file__).parent.parent / "weights" / f"{self.name}-v{self.world.config.generator_version}"

    @property
    def prepare_command(self) -> str:
        return f"paradigm-bench prepare {self.name}"

    @property
    def conditions(self) -> ConditionSpace:
        tokens = self.world.caption_tokens
        return ConditionSpace(num_tokens=tokens.shape[1], vocabulary=len(self.world.vocabulary))

    def read_condition(self, text: str) -> Tensor:
        return torch.from_numpy(self.world.tokenize(text)).view(1, -1)

    def check(self, num_images: int) -> None:
        """Nothing can be missing: the world renders its images."""

    def encoder(self, tokenizer: str) -> Callable[[range], Encoded]:
        return self._encoder(tokenizer, "train")

    def validation_encoder(self, tokenizer: str, num_training_images: int) -> tuple[int, Callable[[range], Encoded]]:
        """Renders of validation captions, of which there are as many as anybody wants."""
        return sys.maxsize, self._encoder(tokenizer, "validation")

    def _encoder(self, tokenizer: str, split: Split) -> Callable[[range], Encoded]:
        model = self.tokenizer(tokenizer)

        def encode(indices: range) -> Encoded:
            images, ids = render_split(self.world, split, np.asarray(indices))
            with torch.inference_mode():
                tokens = self.cached_tokens(model.encode(torch.from_numpy(images)), tokenizer)
            return Encoded(tokens[:, None], self.world.caption_tokens[ids].astype(np.uint8))

        return encode
