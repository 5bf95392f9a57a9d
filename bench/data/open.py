"""The data set that an experiment names."""

from __future__ import annotations

from bench.config.data import ImageData
from bench.data.base import TokenizedData
from bench.data.image_data import TokenizedImages
from bench.data.shapes_data import TokenizedShapes


def open_data(data: str | ImageData) -> TokenizedData:
    """The data set that an experiment names, as tokens.

    Raises:
        ValueError: for a procedural world that does not exist.
    """
    return TokenizedImages(data) if isinstance(data, ImageData) else TokenizedShapes(data)
