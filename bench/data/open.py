"""The data set that an experiment names."""

from __future__ import annotations

from bench.config.data import ImageData
from bench.data.base import TokenizedData
from bench.data.image_data import TokenizedImages
from bench.data.shapes_data import SHAPES_WORLDS, TokenizedShapes
from bench.data.sprites_data import SPRITES_WORLDS, TokenizedSprites
from bench.errors import nearest

WORLDS = (*SHAPES_WORLDS, *SPRITES_WORLDS)
"""Names of the procedural worlds."""


def open_data(data: str | ImageData) -> TokenizedData:
    """The data set that an experiment names, as tokens.

    Raises:
        ValueError: for a procedural world that does not exist.
    """
    if isinstance(data, ImageData):
        return TokenizedImages(data)
    if data not in WORLDS:
        raise ValueError(f"unknown procedural world {data!r}; {nearest(data, list(WORLDS))}")
    return TokenizedSprites(data) if data in SPRITES_WORLDS else TokenizedShapes(data)
