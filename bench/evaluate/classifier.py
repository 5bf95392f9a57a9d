"""A small classifier of a data set's classes: its features stand for images where no pretrained network is at hand, and its
answer says whether a generated image shows the class that was asked for.

Letters: B images, H resolution, F feature channels.

Made by `paradigm-bench prepare` on the training split; its accuracy on the evaluation split is measured then and stored with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WIDTHS = (32, 64, 96, 128)
FEATURE_DIM = 64
SMALLEST_SIDE = 4


class Classifier(nn.Module):
    """3x3 convolutions, halving the side down to 4, averages over quarters, and a hidden layer, whose values are the features."""

    mean: Tensor
    std: Tensor

    def __init__(self, resolution: int, num_classes: int) -> None:
        super().__init__()
        self.resolution, self.num_classes = resolution, num_classes
        self.accuracy: float | None = None
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 3, padding=1), nn.GELU()]
        side, width = resolution, WIDTHS[0]
        for level in range(1, 12):
            after = WIDTHS[min(level, len(WIDTHS) - 1)]
            layers += [nn.Conv2d(width, after, 3, padding=1), nn.GELU()]
            width = after
            if side < 2 * SMALLEST_SIDE:
                break
            layers.append(nn.AvgPool2d(2))
            side //= 2
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, FEATURE_DIM))
        self.head = nn.Linear(FEATURE_DIM, num_classes)
        self.register_buffer("mean", torch.zeros(FEATURE_DIM))
        self.register_buffer("std", torch.ones(FEATURE_DIM))

    def _hidden(self, images: Tensor) -> Tensor:
        return self.body(images.to(self.mean.device).float() / 127.5 - 1.0)

    def features(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, H) to features (B, F), of mean 0 and variance 1 over the training images."""
        return (self._hidden(images) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, H) to logits (B, classes)."""
        return self.head(nn.functional.gelu(self._hidden(images)))

    @torch.inference_mode()
    def measure_features(self, images: Tensor) -> None:
        """Set mean and variance of the features from training images (n, 3, H, H)."""
        hidden = torch.cat([self._hidden(part) for part in images.split(256)]).double()
        self.mean.copy_(hidden.mean(0))
        self.std.copy_(hidden.std(0))

    @torch.inference_mode()
    def classify(self, images: Tensor) -> Tensor:
        """uint8 images (n, 3, H, H) to classes (n,) int64, on the CPU."""
        return torch.cat([self(part).argmax(1).cpu() for part in images.split(256)])

    def save(self, path: Path) -> None:
        """Write weights with sizes and measured accuracy in the file's metadata (safetensors)."""
        about = json.dumps([self.resolution, self.num_classes, self.accuracy])
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, path, metadata={"config": about})

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Read a file written by `save`; frozen and in eval mode."""
        with safe_open(path, framework="pt") as file:
            resolution, num_classes, accuracy = json.loads(file.metadata()["config"])
        model = cls(resolution, num_classes)
        model.load_state_dict(load_file(path))
        model.accuracy = accuracy
        return model.eval().requires_grad_(False)
