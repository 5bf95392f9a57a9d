"""A procedural world as tokens: its renders, and the suite's own autoencoders, shipped and hashed."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from bench.config.tokenizers import TOKENIZERS
from bench.data.base import TokenizedData, cached_features
from bench.data.latents import Encoded

WorldSplit = Literal["train", "validation"]
"""The splits whose images are tokens: what is trained on, and what the validation loss reads."""
WHITENING_IMAGES, WHITENING_BATCH = 1024, 128
"""Renders whose mean and deviation whiten another package's latents, 16,384 tokens at 16 of an image; and how many at once."""
WEIGHTS = Path(__file__).parent.parent / "weights"
"""Networks that ship with the package."""


class TokenizedWorld(TokenizedData):
    """What the procedural worlds have in common: images are rendered, so nothing can be missing."""

    views, chunk, endless = 1, 2048, True
    tokenizer_configs = TOKENIZERS
    generator_version: int
    family: str
    """What worlds of one kind are called together."""

    @abstractmethod
    def render_split(self, indices: np.ndarray, split: WorldSplit) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, 3, H, H) uint8 of a split's image indices (n,), and their caption tokens (n, W)."""

    @property
    def folder(self) -> Path:
        return WEIGHTS / f"{self.name}-v{self.generator_version}"

    @property
    def prepare_command(self) -> str:
        return f"paradigm-bench prepare {self.name}"

    def check(self, num_images: int) -> None:
        """Nothing can be missing: the world renders its images."""

    def whitening_images(self) -> Iterator[torch.Tensor]:
        """The first renders."""
        for start in range(0, WHITENING_IMAGES, WHITENING_BATCH):
            yield torch.from_numpy(self.render_split(np.arange(start, start + WHITENING_BATCH), "train")[0])

    def encoder(self, tokenizer: str) -> Callable[[range], Encoded]:
        return self._encoder(tokenizer, "train")

    def validation_encoder(self, tokenizer: str, num_training_images: int) -> tuple[int, Callable[[range], Encoded]]:
        """Renders of validation captions, of which there are as many as anybody wants."""
        return sys.maxsize, self._encoder(tokenizer, "validation")

    def _encoder(self, tokenizer: str, split: WorldSplit) -> Callable[[range], Encoded]:
        model = self.tokenizer(tokenizer)
        word = np.uint8 if self.conditions.vocabulary <= 2**8 else np.uint16

        def encode(indices: range) -> Encoded:
            rendered, words = self.render_split(np.asarray(indices), split)
            images = torch.from_numpy(rendered)
            with torch.inference_mode():
                tokens = self.cached_tokens(model.encode(images), tokenizer)
                features = cached_features(model.frozen_features(images))
            return Encoded(tokens[:, None], words.astype(word), features=None if features is None else features[:, None])

        return encode
