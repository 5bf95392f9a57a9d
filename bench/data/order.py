"""The order of training images: which one stands at which position of the stream.

Letters: B positions, n images of an epoch.

It is a function of (seed, position), so that runs with different batches see the same images in the same order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK = 2**24
"""Images that are shuffled together; a permutation of all of a thousand million would take 8 GB."""


def image_order(seed: int, positions: np.ndarray, num_images: int) -> np.ndarray:
    """(B,) image indices at positions (B,) of the stream: a permutation per (seed, epoch), block by block where n exceeds BLOCK,
    with the blocks in an order of their own."""
    epochs, places = np.divmod(positions, num_images)
    out = np.empty(len(positions), dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = _shuffled(seed, int(epoch), places[here], num_images)
    return out


def _shuffled(seed: int, epoch: int, places: np.ndarray, num_images: int) -> np.ndarray:
    if num_images <= BLOCK:
        return _permutation((seed, epoch), num_images)[places]
    num_blocks = -(-num_images // BLOCK)
    order = _permutation((seed, epoch, num_blocks), num_blocks)
    sizes = np.minimum(BLOCK, num_images - order * BLOCK)
    ends = np.cumsum(sizes)
    blocks = np.searchsorted(ends, places, side="right")
    out = np.empty(len(places), dtype=np.int64)
    for block in np.unique(blocks):
        here = blocks == block
        inside = _permutation((seed, epoch, num_blocks, int(order[block])), int(sizes[block]))
        out[here] = order[block] * BLOCK + inside[places[here] - (ends[block] - sizes[block])]
    return out


@lru_cache(maxsize=3)
def _permutation(key: tuple[int, ...], length: int) -> np.ndarray:
    return np.random.default_rng(list(key)).permutation(length)
