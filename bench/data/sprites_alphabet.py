"""The alphabet of the sprites world: 256 small symmetric pictures, chosen as a code so that no two look alike.

Letters: S kinds, G = 5 cells per side.

A sprite is a pattern of 5 x 5 cells, equal to its mirror image, in one piece, that fills its frame to all four sides. Of all such
patterns a lexicographic code is kept (Conway & Sloane 1986): a pattern enters when it differs in at least `MIN_CELLS` cells from
every one before it, wherever the two are laid over each other. So a picture with fewer than half as many wrong cells has one
nearest sprite.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

NUM_KINDS = 256
GRID_CELLS = 5
MIN_CELLS = 4
"""Fewest cells in which two kinds differ; with 5 there are fewer than 256 (139 in 20 orders of the patterns, measured)."""
MAX_SHIFT = 2
"""Cells by which a kind is moved up, down and aside in this comparison. A move by part of a cell is between two whole ones."""
FILLED_CELLS = (9, 18)
"""Fewest and most filled cells of 25: neither a line nor a block."""

FIRST = "ba be bo da di do fe ga ki lo ma mi no pa ru ta".split()
SECOND = "bi fa go ka le mo na pi ra su to va wi yo zu ne".split()
NAMES = tuple(first + second for first in FIRST for second in SECOND)
"""A made-up word for each kind, the most frequent kind first."""


def _patterns() -> np.ndarray:
    """Every admissible pattern, (n, G, G) bool, in the order of its bits."""
    half = (GRID_CELLS + 1) // 2
    bits = np.arange(2 ** (GRID_CELLS * half))[:, None] >> np.arange(GRID_CELLS * half) & 1
    left = bits.astype(bool).reshape(-1, GRID_CELLS, half)
    patterns = np.concatenate([left, left[:, :, half - 2 :: -1]], axis=2)
    filled = patterns.sum((1, 2))
    fills = np.all(patterns.any(2), axis=1) & np.all(patterns.any(1), axis=1)
    patterns = patterns[fills & (filled >= FILLED_CELLS[0]) & (filled <= FILLED_CELLS[1])]
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = ndimage.generate_binary_structure(2, 1)
    labels = ndimage.label(patterns, structure=structure)[0].reshape(len(patterns), -1)
    lowest = np.where(labels > 0, labels, labels.max()).min(1)
    return patterns[labels.max(1) == lowest]  # one label, so one piece


def _moved(patterns: np.ndarray) -> np.ndarray:
    """Patterns (n, G, G) seen through their frame after every move by whole cells, (n, moves, G G) float32."""
    frame = np.pad(patterns, ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))).astype(np.float32)
    steps = range(2 * MAX_SHIFT + 1)
    windows = [frame[:, y : y + GRID_CELLS, x : x + GRID_CELLS].reshape(len(patterns), -1) for y in steps for x in steps]
    return np.stack(windows, axis=1)


@cache
def alphabet() -> np.ndarray:
    """The kinds' patterns (S, G, G) bool, the most frequent kind first."""
    patterns = _patterns()
    filled, moved = patterns.sum((1, 2)), _moved(patterns)
    left = np.arange(len(patterns))
    chosen: list[int] = []
    while len(left):
        first = left[0]
        chosen.append(int(first))
        common = (moved[left] @ patterns[first].ravel().astype(np.float32)).max(1)
        left = left[filled[left] + filled[first] - 2 * common >= MIN_CELLS]
    assert len(chosen) >= NUM_KINDS
    order = (np.arange(len(chosen)) + 7) * 101 % len(chosen)  # neighbors in the code look alike: spread them over the ranks
    return patterns[np.array(chosen)[order]][:NUM_KINDS]
