"""Images that are made, looked at and dropped a chunk at a time, so that memory does not grow with their number.

Letters: n images, B images of a chunk, k images that are kept, H resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

CHUNK_IMAGES = 256
"""Images that are looked at together, 50 MB at 256 pixels. It is a multiple of every judging network's batch, so that each image
meets a network in the batch in which it would if all images were there at once: chunks change no number."""

Look = Callable[[Tensor, slice], Mapping[str, np.ndarray]]
"""What is said of each image of a chunk (B, 3, H, H) uint8, arrays (B, ...) by name. The slice is the chunk's place among all."""
Seen = dict[str, np.ndarray]
"""What was said of n images: arrays (n, ...) by name."""


class ImageStream:
    """Images (n, 3, H, H) uint8 in chunks of CHUNK_IMAGES, once; only those at the places to keep stay."""

    def __init__(self, num: int, batches: Iterable[Tensor], keep: Iterable[int] = ()) -> None:
        """num: n; batches: images in order, (any number, 3, H, H) at a time; keep: places among the n."""
        self.num, self._batches, self._keep = num, batches, sorted({int(place) for place in keep})
        self._kept: dict[int, Tensor] = {}

    @classmethod
    def of(cls, images: Tensor, keep: Iterable[int] = ()) -> ImageStream:
        """Images (n, 3, H, H) that are there already."""
        return cls(len(images), images.split(CHUNK_IMAGES), keep)

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[Tensor]:
        start = 0
        for chunk in regrouped(self._batches):
            for place in self._keep:
                if start <= place < start + len(chunk):
                    self._kept[place] = chunk[place - start].clone()
            yield chunk
            start += len(chunk)

    def at(self, places: Iterable[int]) -> Tensor:
        """Images (k, 3, H, H) that passed by, at some of the places to keep."""
        return torch.stack([self._kept[int(place)] for place in places])


def regrouped(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The images of batches (any number, 3, H, H) in chunks of CHUNK_IMAGES, the last of which may be smaller."""
    waiting: Tensor | None = None
    for batch in batches:
        waiting = batch if waiting is None else torch.cat([waiting, batch])
        while len(waiting) > CHUNK_IMAGES:
            yield waiting[:CHUNK_IMAGES]
            waiting = waiting[CHUNK_IMAGES:]
        if len(waiting) == CHUNK_IMAGES:
            yield waiting
            waiting = None
    if waiting is not None and len(waiting):
        yield waiting


def look_at(images: ImageStream, looks: Iterable[Look]) -> Seen:
    """What all looks say of the images: every look sees a chunk before the next is made."""
    found: Seen = {}
    looks, start = tuple(looks), 0
    for chunk in images:
        rows = slice(start, start + len(chunk))
        for look in looks:
            for name, values in look(chunk, rows).items():
                if name not in found:
                    found[name] = np.empty((len(images), *values.shape[1:]), values.dtype)
                found[name][rows] = values
        start = rows.stop
    assert start == len(images), f"{start} images came in place of {len(images)}"
    return found


def chunks_of(num: int) -> Iterator[np.ndarray]:
    """The places 0 .. num - 1, those of a chunk (B,) at a time."""
    return (np.arange(start, min(start + CHUNK_IMAGES, num)) for start in range(0, num, CHUNK_IMAGES))
