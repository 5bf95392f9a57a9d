"""Levels of the sprites world, and its captions as arrays.

Letters: n captions, P phrases of a caption.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from bench.data.sprites_alphabet import NAMES

SPRITES_VERSION = 1
"""Raise when any rendered byte changes; it is part of every cache key and protocol hash."""

NUMBERS = ("one", "two", "three", "four")


@dataclass(frozen=True, kw_only=True)
class SpritesConfig:
    """The world's definition; two equal configurations render equal bytes."""

    name: str
    fields_per_side: int
    """The sheet is a square of fields; each holds one object or none, and is 2 x 2 tokens."""
    max_objects: int
    phrase_shares: tuple[float, ...]
    """Share of captions with 1, 2, ... phrases."""
    number_shares: tuple[float, ...]
    """Share of phrases that name 1, 2, ... equal objects, where they fit."""
    zipf_exponent: float = 1.0
    """The kind of rank k has a frequency that falls as k^-exponent; 0 makes all equal."""
    num_kinds: int = len(NAMES)
    colors: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "black", "orange", "cyan")
    sizes: tuple[str, ...] = ("small", "large")
    cell_pixels: tuple[int, ...] = (2, 3)
    """Side of a sprite's cell, for each size."""
    field_pixels: int = 20
    margin_pixels: tuple[int, ...] = (4, 2)
    """Distance of a sprite from the upper and left border of its field, for each size."""
    free_pixels: int = 1
    """A sprite begins there or up to so many pixels lower, and likewise to the right."""
    relations: tuple[str, ...] = ("above", "left of")
    color_jitter: int = 5
    background_range: tuple[int, int] = (212, 232)
    seed: int = 0
    generator_version: int = SPRITES_VERSION

    @property
    def resolution(self) -> int:
        """Pixels per side of an image."""
        return self.fields_per_side * self.field_pixels

    @property
    def max_phrases(self) -> int:
        """P."""
        return len(self.phrase_shares)


SPRITES40 = SpritesConfig(
    name="sprites40", fields_per_side=2, max_objects=2, phrase_shares=(0.25, 0.75), number_shares=(0.5, 0.5)
)
"""Level 1: 16 tokens, one or two objects."""
SPRITES80 = SpritesConfig(
    name="sprites80", fields_per_side=4, max_objects=4, phrase_shares=(0.1, 0.45, 0.45), number_shares=(0.7, 0.2, 0.1)
)
"""Level 2: 64 tokens, up to four objects."""
SPRITES160 = SpritesConfig(
    name="sprites160",
    fields_per_side=8,
    max_objects=8,
    phrase_shares=(0.0, 0.2, 0.4, 0.4),
    number_shares=(0.6, 0.3, 0.1),
)
"""Level 3: 256 tokens, up to eight objects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Captions:
    """n captions as arrays; what a phrase or a relation lacks is -1."""

    number: np.ndarray  # (n, P) int64, objects that the phrase names; 0 where there is no phrase
    size: np.ndarray  # (n, P) int64
    color: np.ndarray  # (n, P) int64
    kind: np.ndarray  # (n, P) int64, by rank
    relation: np.ndarray  # (n, P - 1) int64, between a phrase and the next

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, rows: np.ndarray | slice) -> Captions:
        return Captions(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def named(self) -> np.ndarray:
        """(n, P) whether there is such a phrase."""
        return self.number > 0
