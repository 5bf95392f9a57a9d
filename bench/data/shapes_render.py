"""Scenes to pixels: analytic signed distances, anti-aliased, vectorized over images.

Letters: n images, K object slots, H = resolution. Float32 throughout and rounded to 8 bit at the end. Nothing here is random.
"""

from __future__ import annotations

import math

import numpy as np

from bench.data.shapes_world import ABSENT, Scenes, ShapesWorld, Split

CHUNK_IMAGES = 128
"""Images rendered at once: keeps the work arrays inside the processor's cache (measured: 64 to 256 are within 10 %)."""


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray | np.float32) -> np.ndarray:
    """Signed distance in pixels (negative inside) of a shape whose area is pi radius^2, so that size means area.

    Corners are measured by the largest edge distance, which keeps them sharp.

    Raises:
        ValueError: for an unknown shape.
    """
    if shape == "circle":
        return np.sqrt(x * x + y * y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius * (math.sqrt(math.pi) / 2)
    if shape == "triangle":
        inner = radius * (math.sqrt(4 * math.pi / math.sqrt(3)) / (2 * math.sqrt(3)))
        return np.maximum(y, np.abs(x) * (math.sqrt(3) / 2) - y * 0.5) - inner
    if shape == "cross":
        arm = radius * math.sqrt(math.pi / 20)
        ax, ay = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(ax - 3 * arm, ay - arm), np.maximum(ax - arm, ay - 3 * arm))
    if shape == "ring":
        outer = radius / math.sqrt(0.75)
        return np.abs(np.sqrt(x * x + y * y) - 0.75 * outer) - 0.25 * outer
    raise ValueError(f"unknown shape {shape!r}")


def coverage(
    shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray | np.float32, angle: np.ndarray | np.float32
) -> np.ndarray:
    """Share of each pixel that the rotated shape covers, in [0, 1]; x, y (n, H, H) are offsets from its center in pixels."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.clip(0.5 - signed_distance(shape, x * cos + y * sin, y * cos - x * sin, radius), 0.0, 1.0)


def render(world: ShapesWorld, scenes: Scenes) -> np.ndarray:
    """Images of the scenes, (n, 3, H, H) uint8; a later object covers an earlier one."""
    size = world.config.resolution
    images = np.empty((len(scenes), 3, size, size), dtype=np.uint8)
    for start in range(0, len(scenes), CHUNK_IMAGES):
        part = slice(start, start + CHUNK_IMAGES)
        images[part] = _render_chunk(world, scenes, part)
    return images


def _render_chunk(world: ShapesWorld, scenes: Scenes, part: slice) -> np.ndarray:
    config = world.config
    grid = np.arange(config.resolution, dtype=np.float32) + np.float32(0.5)
    radii = np.array(config.radii, dtype=np.float32)
    background = scenes.background[part]
    canvas = np.repeat(background[:, :, None], config.resolution**2, axis=2)
    canvas = canvas.reshape(len(background), 3, config.resolution, config.resolution)
    for slot in range(scenes.shape.shape[1]):
        shapes = scenes.shape[part, slot]
        for index, name in enumerate(config.shapes):
            rows = np.flatnonzero(shapes == index)
            if len(rows) == 0 or index == ABSENT:
                continue
            center = scenes.center[part][rows, slot]
            x = grid[None, None, :] - center[:, 0, None, None]
            y = grid[None, :, None] - center[:, 1, None, None]
            radius = radii[scenes.size[part][rows, slot]][:, None, None]
            alpha = coverage(name, x, y, radius, scenes.angle[part][rows, slot][:, None, None])[:, None]
            canvas[rows] += alpha * (scenes.rgb[part][rows, slot][:, :, None, None] - canvas[rows])
    return np.rint(canvas).astype(np.uint8)


def render_split(world: ShapesWorld, split: Split, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, H, H) uint8 and caption ids (n,) of a split's image indices."""
    ids = world.caption_ids(split, indices)
    return render(world, world.scenes(ids, indices, split)), ids


def render_captions(world: ShapesWorld, caption_ids: np.ndarray, split: Split = "test", first_index: int = 0) -> np.ndarray:
    """One image for each given caption, (n, 3, H, H) uint8; image i uses the nuisances of index first_index + i."""
    indices = np.arange(first_index, first_index + len(caption_ids))
    return render(world, world.scenes(caption_ids, indices, split))
