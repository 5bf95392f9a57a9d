"""The probe: a small network trained to read captions off images, independent of the verifier's rules and of CLIP.

Letters: B images, H resolution, W words.

It checks the checker: where verifier and probe disagree about an image, one of them is wrong. Made by `paradigm-bench prepare`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHANNELS = (32, 64, 128)


class Probe(nn.Module):
    """A probe's file: its weights, and the sizes that its constructor takes."""

    sizes: tuple[int, ...]

    def save(self, path: Path) -> None:
        """Write weights with what rebuilds the model in the file's metadata (safetensors)."""
        save_file(self.state_dict(), path, metadata={"config": json.dumps(self.sizes)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file written by `save`; frozen and in eval mode."""
        with safe_open(path, framework="pt") as file:
            sizes = json.loads(file.metadata()["config"])
        model = cls(*sizes)
        model.load_state_dict(load_file(path))
        return model.eval().requires_grad_(False)


class CaptionProbe(Probe):
    """Images (B, 3, H, H) uint8 to logits of each word of the canonical two-object caption (B, W, vocabulary)."""

    def __init__(self, resolution: int, num_words: int, vocabulary: int) -> None:
        super().__init__()
        self.sizes = (resolution, num_words, vocabulary)
        layers: list[nn.Module] = []
        for before, after in zip((3, *CHANNELS[:-1]), CHANNELS, strict=True):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(after, after, 3, stride=2, padding=1),
                nn.GELU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        features = CHANNELS[-1] * (resolution // 2 ** len(CHANNELS)) ** 2
        self.head = nn.Sequential(nn.Linear(features, 256), nn.GELU(), nn.Linear(256, num_words * vocabulary))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, H) to logits of each word (B, W, vocabulary)."""
        out: Tensor = self.head(self.layers(images.float() / 127.5 - 1.0))
        return out.unflatten(1, self.sizes[1:])

    def reads(self, images: Tensor, canonical: Tensor, batch: int = 256) -> Tensor:
        """Whether every word of the canonical caption (B, W) is the likeliest one: (B,) bool."""
        return torch.cat(
            [
                (self(part).argmax(2) == words).all(1)
                for part, words in zip(images.split(batch), canonical.split(batch), strict=True)
            ]
        )
