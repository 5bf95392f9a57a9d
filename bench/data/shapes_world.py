"""The procedural captioned shapes: a small world in which a caption can be checked exactly.

Letters: n images, K object slots (2), C captions, W words per caption, H = resolution.

A world is a palette of shapes, colors, sizes and relations. Its captions name one object ("a large red circle")
or two ("a large red circle above a small blue square"); everything that a caption does not name (position, rotation,
color jitter, background) is drawn per image from a counter-based hash, so that image `index` of a split is the same
bytes on every machine, in any order. Nothing here reads files or keeps random state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

GENERATOR_VERSION = 1
"""Raise when any rendered byte changes; it is part of every cache key and protocol hash."""

Split = Literal["train", "validation", "test", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "held_out")
RELATIONS = ("above", "below", "left of", "right of")
SHAPES = ("circle", "square", "triangle", "cross", "ring")
NUM_SLOTS = 2
ABSENT = -1

RGB = {
    "red": (205, 35, 40),
    "green": (40, 150, 50),
    "blue": (35, 75, 205),
    "yellow": (225, 195, 20),
    "purple": (145, 50, 185),
    "black": (25, 25, 25),
    "orange": (240, 130, 20),
    "cyan": (20, 175, 190),
}
"""Palette in 8-bit sRGB; any two differ by at least 60 (Euclidean), so a jitter of 6 cannot confuse them."""


def hash_uniform(stream: int, indices: np.ndarray, fields: int) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend only on (stream, index, field): the SplitMix64 finalizer on a counter.

    Args:
        stream: which independent sequence (world seed and split folded together).
        indices: (n,) image indices.
        fields: how many numbers each image needs.

    Returns:
        (n, fields) float64. Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
    """
    with np.errstate(over="ignore"):
        golden = np.uint64(0x9E3779B97F4A7C15)
        counter = indices.astype(np.uint64)[:, None] * np.uint64(1 << 10) + np.arange(fields, dtype=np.uint64)
        z: np.ndarray = (counter + np.uint64(1)) * golden + np.uint64(stream) * np.uint64(0xD1B54A32D192ED03)
        for _ in range(2):
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenes:
    """n scenes as arrays; an absent object has shape, color and size -1, a single-object scene relation -1."""

    shape: np.ndarray  # (n, K) int64
    color: np.ndarray  # (n, K) int64
    size: np.ndarray  # (n, K) int64
    relation: np.ndarray  # (n,) int64
    center: np.ndarray  # (n, K, 2) float32, x then y in pixels
    angle: np.ndarray  # (n, K) float32, radians
    rgb: np.ndarray  # (n, K, 3) float32, jittered
    background: np.ndarray  # (n, 3) float32

    def __len__(self) -> int:
        return len(self.relation)


@dataclass(frozen=True, kw_only=True)
class ShapesConfig:
    """The world's definition; two equal configurations render equal bytes."""

    name: str = "shapes32"
    resolution: int = 32
    shapes: tuple[str, ...] = ("circle", "square", "triangle")
    colors: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "black")
    sizes: tuple[str, ...] = ("small", "large")
    radii: tuple[float, ...] = (3.4, 4.8)
    """Pixels, of the circle whose area each shape of that size has."""
    relations: tuple[str, ...] = ("above", "left of")
    held_out_pairs: tuple[tuple[str, str], ...] = (("circle", "red"), ("square", "blue"), ("triangle", "yellow"))
    """(shape, color) pairs that no training caption contains."""
    single_object_share: float = 0.125
    """Share of training images whose caption names one object."""
    main_axis_centers: tuple[float, float] = (8.2, 24.0)
    main_axis_jitter: float = 0.5
    cross_axis_jitter: float = 2.0
    single_jitter: float = 5.0
    angle_jitter_degrees: float = 6.0
    color_jitter: float = 5.0
    background_range: tuple[float, float] = (212.0, 232.0)
    seed: int = 0
    generator_version: int = GENERATOR_VERSION


SHAPES32 = ShapesConfig()
SHAPES64 = ShapesConfig(
    name="shapes64",
    resolution=64,
    shapes=SHAPES,
    colors=tuple(RGB),
    radii=(5.5, 8.5),
    relations=RELATIONS,
    held_out_pairs=(
        ("circle", "red"),
        ("square", "green"),
        ("triangle", "blue"),
        ("cross", "yellow"),
        ("ring", "purple"),
        ("circle", "black"),
        ("square", "orange"),
        ("triangle", "cyan"),
    ),
    main_axis_centers=(17.0, 47.0),
    main_axis_jitter=3.0,
    cross_axis_jitter=10.0,
    single_jitter=14.0,
    angle_jitter_degrees=8.0,
    color_jitter=6.0,
)
"""The hard preset: 5 shapes x 8 colors x 2 sizes = 80 object types, four relations."""


@dataclass(frozen=True)
class ShapesWorld:
    """Captions, splits and scenes of one configuration."""

    config: ShapesConfig = field(default_factory=ShapesConfig)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides the rendered bytes and the captions."""
        return hashlib.sha256(repr(self.config).encode()).hexdigest()[:12]

    @cached_property
    def _caption_arrays(self) -> dict[str, np.ndarray]:
        """All captions as arrays over C, and the split of each: 0..3 as in SPLITS, 4 for single-object captions."""
        c = self.config
        kinds = [(s, k, z) for s in range(len(c.shapes)) for k in range(len(c.colors)) for z in range(len(c.sizes))]
        held = {(c.shapes.index(s), c.colors.index(k)) for s, k in c.held_out_pairs}
        rows = [(a, (ABSENT,) * 3, ABSENT) for a in kinds]
        rows += [(a, b, r) for a in kinds for b in kinds if a[:2] != b[:2] for r in range(len(c.relations))]
        objects = np.array([[a, b] for a, b, _ in rows], dtype=np.int64)  # (C, K, 3)
        relation = np.array([r for _, _, r in rows], dtype=np.int64)
        is_held = np.array([a[:2] in held or b[:2] in held for a, b, _ in rows])
        draw = hash_uniform(c.seed * 8 + 7, np.arange(len(rows)), 1)[:, 0]
        split = np.where(draw < 0.75, 0, np.where(draw < 0.85, 1, 2))
        split = np.where(is_held, 3, split)
        split = np.where((relation == ABSENT) & ~is_held, 4, split)
        split = np.where((relation == ABSENT) & is_held, 5, split)
        return {"objects": objects, "relation": relation, "split": split}

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Words of a caption by token id; 0 is padding. "left of" is one word; articles carry nothing and are dropped."""
        c = self.config
        relations = tuple(r.removesuffix(" of") for r in c.relations)
        return ("<pad>", *c.sizes, *c.colors, *c.shapes, *relations)

    @cached_property
    def caption_tokens(self) -> np.ndarray:
        """Words (C, W) int64, W = 7: size color shape [relation size color shape]."""
        c, arrays = self.config, self._caption_arrays
        shape, color, size = np.moveaxis(arrays["objects"], 2, 0)
        offsets = np.cumsum([1, len(c.sizes), len(c.colors), len(c.shapes)])
        words = np.stack([size + offsets[0], color + offsets[1], shape + offsets[2]], axis=2)  # (C, K, 3)
        second = arrays["relation"][:, None] != ABSENT
        relation = np.where(second, arrays["relation"][:, None] + offsets[3], 0)
        return np.concatenate([words[:, 0], relation, np.where(second, words[:, 1], 0)], axis=1)

    def caption_text(self, caption_id: int) -> str:
        """The caption as a person would write it."""
        c, arrays = self.config, self._caption_arrays
        names = [f"a {c.sizes[z]} {c.colors[k]} {c.shapes[s]}" for s, k, z in arrays["objects"][caption_id] if s >= 0]
        relation = arrays["relation"][caption_id]
        return names[0] if relation == ABSENT else f"{names[0]} {c.relations[relation]} {names[1]}"

    def tokenize(self, caption: str) -> np.ndarray:
        """(W,) int64 tokens of free text such as "a large red circle left of a small blue square".

        Raises:
            ValueError: for a word that the world does not have, naming the words that it has.
        """
        words = [w for w in caption.lower().replace(",", " ").split() if w not in ("a", "an", "the", "of", "to")]
        unknown = [w for w in words if w not in self.vocabulary]
        if unknown or len(words) not in (3, 7):
            wrong = f"unknown word {unknown[0]!r}" if unknown else f"{len(words)} words instead of 3 or 7"
            known = ", ".join(self.vocabulary[1:])
            example = self.caption_text(len(self.caption_tokens) - 1)
            raise ValueError(f"caption {caption!r}: {wrong}; known words: {known}; for example {example!r}")
        return np.array([self.vocabulary.index(w) for w in words] + [0] * (7 - len(words)), dtype=np.int64)

    def caption_objects(self, caption_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, K, 3) shape, color, size of each named object and (n,) relation; -1 where there is none."""
        return self._caption_arrays["objects"][caption_ids], self._caption_arrays["relation"][caption_ids]

    def split_ids(self, split: Split) -> np.ndarray:
        """Ids of the split's two-object captions, ascending.

        "train": seen (shape, color) pairs; "validation" and "test": other captions of the same pairs;
        "held_out": at least one (shape, color) pair that no training caption contains.
        """
        return np.flatnonzero(self._caption_arrays["split"] == SPLITS.index(split))

    def held_out_levels(self, caption_ids: np.ndarray) -> dict[str, np.ndarray]:
        """Which captions (n,) name one, and which two, objects of a (shape, color) pair that no training caption contains."""
        c = self.config
        held = {(c.shapes.index(shape), c.colors.index(color)) for shape, color in c.held_out_pairs}
        objects = self.caption_objects(caption_ids)[0]
        number = np.array([sum((int(shape), int(color)) in held for shape, color, _ in pair) for pair in objects])
        return {"heldout_one": number == 1, "heldout_both": number == 2}

    def caption_ids(self, split: Split, indices: np.ndarray) -> np.ndarray:
        """(n,) caption id of each image; only training images include single-object captions."""
        two, one = self.split_ids(split), np.flatnonzero(self._caption_arrays["split"] == 4)
        draw = hash_uniform(self._stream(split, 0), indices, 2)
        chosen = two[(draw[:, 0] * len(two)).astype(np.int64)]
        if split != "train":
            return chosen
        single = one[(draw[:, 0] * len(one)).astype(np.int64)]
        return np.where(draw[:, 1] < self.config.single_object_share, single, chosen)

    def scenes(self, caption_ids: np.ndarray, indices: np.ndarray, split: Split) -> Scenes:
        """Scenes that obey captions (n,), with the unnamed rest drawn per image index (n,)."""
        c, arrays = self.config, self._caption_arrays
        n = len(indices)
        draw = hash_uniform(self._stream(split, 1), indices, 16)
        shape, color, size = np.moveaxis(arrays["objects"][caption_ids], 2, 0)
        relation = arrays["relation"][caption_ids]
        names = np.array([RELATIONS.index(r) for r in c.relations])[relation]
        jitter = draw[:, :4].reshape(n, 2, 2) * 2 - 1
        main = np.array(c.main_axis_centers) + jitter[:, :, 0] * c.main_axis_jitter  # (n, K), ascending
        cross = c.resolution / 2 + jitter[:, :, 1] * c.cross_axis_jitter
        main = np.where(np.isin(names, (1, 3))[:, None], main[:, ::-1], main)  # below, right of: first object is last
        vertical = (names < 2)[:, None]
        center = np.stack([np.where(vertical, cross, main), np.where(vertical, main, cross)], axis=2)
        alone = c.resolution / 2 + jitter[:, :1] * c.single_jitter
        center = np.where((relation == ABSENT)[:, None, None], alone, center)
        base = np.array([RGB[name] for name in c.colors], dtype=np.float64)
        rgb = base[color] + (draw[:, 4:10].reshape(n, 2, 3) * 2 - 1) * c.color_jitter
        low, high = c.background_range
        grey = low + draw[:, 10:11] * (high - low)
        return Scenes(
            shape=shape,
            color=color,
            size=size,
            relation=relation,
            center=center.astype(np.float32),
            angle=np.deg2rad((draw[:, 11:13] * 2 - 1) * c.angle_jitter_degrees).astype(np.float32),
            rgb=np.clip(rgb, 0, 255).astype(np.float32),
            background=np.clip(grey + (draw[:, 13:16] * 2 - 1) * 3.0, 0, 255).astype(np.float32),
        )

    def _stream(self, split: Split, purpose: int) -> int:
        return self.config.seed * 64 + SPLITS.index(split) * 8 + purpose
