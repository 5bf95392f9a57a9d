"""The training images of an endless world: the first lie in the latent cache, others are rendered and encoded when a step asks
for them, with the tokens that the cache would hold.

Letters: B images.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.base import TokenizedData
from bench.data.latents import INDEX, Encoded, TrainingData, images_per_shard
from bench.data.open import open_data

CACHE_SHARE = 0.5
"""Of the free disk that the latent caches of a sweep may take together."""


def cached_images(folder: Path, num_images: int, row_bytes: int, share: float = 1.0) -> int:
    """How many of a world's images a latent cache holds: all that fit, in whole shards, and one shard at least.

    Args:
        row_bytes: what an image takes.
        share: of CACHE_SHARE of the disk that is free or already the cache's, where several caches lie side by side.
    """
    disk = next(place for place in (folder, *folder.parents) if place.exists())
    own = sum(shard.stat().st_size for shard in folder.iterdir()) if folder.exists() else 0
    fitting = int(share * CACHE_SHARE * (shutil.disk_usage(disk).free + own) / row_bytes)
    shard = images_per_shard(row_bytes)
    return num_images if num_images <= fitting else min(num_images, max(shard, fitting // shard * shard))


def about_stream(dataset: TokenizedData, tokenizer: str, num_images: int) -> dict[str, Any]:
    """What the index of a cache says whose images beyond its own are rendered."""
    return {"stream": {"world": dataset.name, "tokenizer": tokenizer, "num_images": num_images}}


def training_images(folder: Path) -> TrainingData:
    """The training images of a latent cache, and those that its world renders beyond it; one object as long as the cache is the
    same, so that a worker maps it once and not anew for every run (25 runs had mapped 7 GB; docs/log.md).

    Raises:
        ValueError: when the world is not what it was when the cache was filled.
    """
    return _opened(folder, (folder / INDEX).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _opened(folder: Path, _written: int) -> TrainingData:
    cached = TrainingData(folder)
    stream = cached.index.get("stream")
    if stream is None:
        return cached
    dataset = open_data(stream["world"])
    if cached.index["data"] != dataset.data_id:
        raise ValueError(
            f"{folder} holds images of {cached.index['data']}, and the world is {dataset.data_id}; remove the folder"
        )
    return StreamedImages(folder, stream["num_images"], dataset.encoder(stream["tokenizer"]))


class StreamedImages(TrainingData):
    """A latent cache of the first images of a world, and the others as they are asked for."""

    def __init__(self, folder: Path, num_images: int, encode: Callable[[Any], Encoded]) -> None:
        """encode: renders and encodes images by index."""
        super().__init__(folder)
        self.num_images, self.num_cached, self._encode = num_images, super().__len__(), encode
        self._made: tuple[bytes, Encoded] | None = None

    def __len__(self) -> int:
        return self.num_images

    def rows(self, name: str, indices: np.ndarray) -> np.ndarray:
        """As of a cache that holds all images."""
        beyond = indices >= self.num_cached
        if not beyond.any():
            return super().rows(name, indices)
        made: np.ndarray = getattr(self._make(indices[beyond]), name)
        out = np.empty((len(indices), *made.shape[1:]), dtype=made.dtype)
        out[beyond] = made
        if not beyond.all():
            out[~beyond] = super().rows(name, indices[~beyond])
        return out

    def _make(self, indices: np.ndarray) -> Encoded:
        """Tokens and conditions of images, which are asked for one after the other."""
        key = indices.tobytes()
        if self._made is None or self._made[0] != key:
            self._made = (key, self._encode(indices))
        return self._made[1]
