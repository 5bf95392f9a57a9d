"""Pictures in few colors, so that pages and folders stay small."""

from __future__ import annotations

from PIL import Image

FIGURE_COLORS, SAMPLE_COLORS = 96, 256
"""Of charts, where lines have few; of sheets of generated images, the most that a palette holds. A sheet of sprites takes two
fifths of its bytes then; its values are 3 of 255 off on the mean, one in a hundred 25 or more (measured on results/newer)."""


def in_few_colors(image: Image.Image, colors: int) -> Image.Image:
    """The picture with a palette of its own, without dithering."""
    return image.convert("RGB").quantize(colors, dither=Image.Dither.NONE)
