"""The data set that an experiment names."""

from __future__ import annotations

from bench.config.data import ImageData
from bench.data.base import TokenizedData


def open_data(data: str | ImageData) -> TokenizedData:
    """The data set that an experiment names, as tokens.

    Raises:
        ValueError: for a procedural world that does not exist.
    """
    if isinstance(data, ImageData):
        from bench.data.image_data import TokenizedImages

        return TokenizedImages(data)
    from bench.data.shapes_data import TokenizedShapes

    return TokenizedShapes(data)
