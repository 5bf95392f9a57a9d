"""Wrong captions and broken shapes, for the verifier's error rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.data.shapes_render import coverage, render
from bench.data.shapes_world import Scenes, ShapesWorld


def one_word_changed(
    world: ShapesWorld, ids: np.ndarray, generator: np.random.Generator, columns: Sequence[int] = range(7)
) -> np.ndarray:
    """For each two-object caption another existing one that differs in exactly one word, in one of the columns; (n,) ids."""
    lookup = {tuple(row): index for index, row in enumerate(world.caption_tokens)}
    out = ids.copy()
    for position, row in enumerate(world.caption_tokens[ids]):
        options = []
        for column in columns:
            for word in range(1, len(world.vocabulary)):
                changed = row.copy()
                changed[column] = word
                if word != row[column] and tuple(changed) in lookup:
                    options.append(lookup[tuple(changed)])
        out[position] = generator.choice(options)
    return out


def _first_object(
    world: ShapesWorld, scenes: Scenes, change: Callable[[np.ndarray, np.ndarray], np.ndarray], scale: float
) -> np.ndarray:
    """Render the scenes with the first object's mask changed; `change` gets masks (n, H, H) and centers (n, 2)."""
    config = world.config
    grid = np.arange(config.resolution, dtype=np.float32) + np.float32(0.5)
    x = grid[None, None, :] - scenes.center[:, 0, 0, None, None]
    y = grid[None, :, None] - scenes.center[:, 0, 1, None, None]
    radius = np.array(config.radii, dtype=np.float32)[scenes.size[:, 0]][:, None, None] * np.float32(scale)
    angle = scenes.angle[:, 0, None, None]
    masks = np.stack([coverage(name, x, y, radius, angle) for name in config.shapes])
    alpha = change(masks[scenes.shape[:, 0], np.arange(len(scenes))], scenes.center[:, 0])[:, None]
    emptied = scenes.shape.copy()
    emptied[:, 0] = -1
    canvas = render(world, Scenes(**{**{n: getattr(scenes, n) for n in scenes.__dataclass_fields__}, "shape": emptied}))
    color = scenes.rgb[:, 0, :, None, None]
    return np.rint(canvas + alpha * (color - canvas)).astype(np.uint8)


def _cut(masks: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Remove everything right of the center."""
    columns = np.arange(masks.shape[2])[None, None, :]
    return np.where(columns + 0.5 < center[:, 0, None, None], masks, 0)


def _seam_shift(pixels: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Shift the half below the center sideways."""

    def change(masks: np.ndarray, center: np.ndarray) -> np.ndarray:
        rows = np.arange(masks.shape[1])[None, :, None]
        return np.where(rows + 0.5 < center[:, 1, None, None], masks, np.roll(masks, pixels, axis=2))

    return change


def _unchanged(masks: np.ndarray, center: np.ndarray) -> np.ndarray:
    return masks


BREAKERS: dict[str, Callable[[ShapesWorld, Scenes], np.ndarray]] = {
    "first object cut in half": lambda w, s: _first_object(w, s, _cut, 1.0),
    "lower half of the first object shifted by 1 pixel": lambda w, s: _first_object(w, s, _seam_shift(1), 1.0),
    "lower half of the first object shifted by 2 pixels": lambda w, s: _first_object(w, s, _seam_shift(2), 1.0),
    "lower half of the first object shifted by 3 pixels": lambda w, s: _first_object(w, s, _seam_shift(3), 1.0),
    "first object swollen by 20 % in radius": lambda w, s: _first_object(w, s, _unchanged, 1.2),
    "first object shrunk by 20 % in radius": lambda w, s: _first_object(w, s, _unchanged, 0.8),
}
