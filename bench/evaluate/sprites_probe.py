"""The field probe: a small network that reads sprites off a sheet, independent of the verifier's rules and of CLIP.

Letters: B images, H resolution, S kinds, g fields per side, F pixels per field.

It checks the checker: where verifier and probe disagree about an image, one of them is wrong. It looks at each field alone, so
that one network serves all levels. Made by `paradigm-bench prepare`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.shapes_world import ABSENT
from bench.data.sprites_config import SpritesConfig
from bench.evaluate.probe import Probe
from bench.evaluate.sprites_verifier import Fields

CHANNELS = (24, 48)


class FieldProbe(Probe):
    """Images (B, 3, H, H) uint8 to logits of each field: kind or none (B, g, g, S + 1), size and color."""

    def __init__(self, field_pixels: int, num_kinds: int, num_sizes: int, num_colors: int) -> None:
        super().__init__()
        self.sizes = (field_pixels, num_kinds, num_sizes, num_colors)
        first, second = CHANNELS
        side = field_pixels // 4
        self.layers = nn.Sequential(
            nn.Conv2d(3, first, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(second * side**2, 96),
            nn.GELU(),
            nn.Linear(96, num_kinds + 1 + num_sizes + num_colors),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 images (B, 3, H, H) to logits (B, g, g, S + 1), (B, g, g, sizes), (B, g, g, colors); the last kind is none."""
        pixels, num_kinds, num_sizes, num_colors = self.sizes
        side = images.shape[2] // pixels
        fields = images.unflatten(3, (side, pixels)).unflatten(2, (side, pixels)).permute(0, 2, 4, 1, 3, 5)
        out: Tensor = self.layers(fields.flatten(0, 2).float() / 127.5 - 1.0)
        kind, size, color = out.split((num_kinds + 1, num_sizes, num_colors), dim=1)
        shape = (len(images), side, side, -1)
        return kind.view(shape), size.view(shape), color.view(shape)

    @torch.inference_mode()
    def reads(self, config: SpritesConfig, images: Tensor, batch: int = 64) -> Fields:
        """The occupied fields of images (B, 3, H, H), as the verifier describes them."""
        parts = [tuple(logits.argmax(3) for logits in self(part)) for part in images.split(batch)]
        kind, size, color = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
        image, row, column = np.nonzero(kind < config.num_kinds)
        where = (image, row, column)
        return Fields(image, row, column, kind[where], size[where], color[where], np.full(len(image), float(ABSENT)))
