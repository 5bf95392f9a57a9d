"""The exact verifier of prompt following: reads the objects off an image and compares them with the caption.

Letters: n images, P connected components (the objects found), T templates, H = resolution, K object slots.

A component counts as a shape only when it overlaps an analytically rendered template of that shape *and size*: cut, shifted or
swollen shapes match none. The verifier is a fixed function: never train or select on it over the test split.
What it does not do: judge anything that the caption does not name (exact position, background, style).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from bench.data.shapes_render import coverage
from bench.data.shapes_world import ABSENT, RELATIONS, RGB, ShapesConfig, ShapesWorld

FOREGROUND_DISTANCE = 48.0
"""RGB distance from the background above which a pixel belongs to an object; half of yellow's own distance is 98 (measured)."""
COLOR_TOLERANCE = 48.0
"""Largest RGB distance of a component's core from a palette color; the closest two colors are 61 apart (orange, yellow)."""
FOREIGN_DISTANCE = 70.0
"""A pixel whose color is this far from every mixture of background and object color is not part of the object."""
MIN_IOU = 0.80
"""Smallest soft overlap with a template. Measured on 20,000 renders: right shapes overlap by at least 0.89."""
MIN_COMPONENT_PIXELS = 4
"""Smaller specks are not counted as objects."""
SUBPIXEL_STEPS = 8
TEMPLATE_ANGLES_DEGREES = (-6.0, -2.0, 2.0, 6.0)

ATTRIBUTES = ("count", "shape", "color", "size", "relation")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Per image: whether everything holds, and each attribute under the best assignment of components to words."""

    exact: np.ndarray  # (n,) bool
    attributes: dict[str, np.ndarray]  # name -> (n,) float64 in [0, 1]
    num_found: np.ndarray  # (n,) int64

    @property
    def mean_attributes(self) -> np.ndarray:
        """(n,) mean over the attributes."""
        return np.mean([self.attributes[name] for name in ATTRIBUTES], axis=0)

    def reasons(self) -> list[str]:
        """For each image what is wrong, such as "count, shape"; empty where everything holds."""
        wrong = {name: self.attributes[name] < 1 for name in ATTRIBUTES}
        return [", ".join(name for name in ATTRIBUTES if wrong[name][image]) for image in range(len(self.exact))]


@dataclass(frozen=True, slots=True)
class Components:
    """The objects found in n images, at most `slots` of each; unused slots have shape -1."""

    count: np.ndarray  # (n,) int64, all components, accepted or not
    shape: np.ndarray  # (n, slots) int64, -1 when no template fits
    color: np.ndarray  # (n, slots) int64, -1 when no palette color fits
    size: np.ndarray  # (n, slots) int64
    center: np.ndarray  # (n, slots, 2) float64, x then y
    overlap: np.ndarray  # (n, slots) float64, best soft IoU


@cache
def _templates(config: ShapesConfig) -> tuple[np.ndarray, np.ndarray, int]:
    """Masks (S, S, T, w*w) by subpixel offset, their (T, 2) shape and size, and the half window."""
    half = int(np.ceil(max(config.radii) * 1.65)) + 1
    grid = np.arange(-half, half + 1, dtype=np.float32)
    offsets = (np.arange(SUBPIXEL_STEPS, dtype=np.float32) + 0.5) / SUBPIXEL_STEPS - 0.5
    masks, labels = [], []
    for s, shape in enumerate(config.shapes):
        for z, radius in enumerate(config.radii):
            for degrees in TEMPLATE_ANGLES_DEGREES:
                x = grid[None, None, None, :] - offsets[None, :, None, None]
                y = grid[None, None, :, None] - offsets[:, None, None, None]
                angle = np.float32(np.deg2rad(degrees * config.angle_jitter_degrees / 6.0))
                mask = coverage(shape, x, y, np.float32(radius), angle)
                masks.append(mask.reshape(SUBPIXEL_STEPS, SUBPIXEL_STEPS, -1))
                labels.append((s, z))
    return np.stack(masks, axis=2), np.array(labels), half


def find_components(config: ShapesConfig, images: np.ndarray, slots: int = 2) -> Components:
    """Find, color and match every connected component.

    Args:
        config: the world whose shapes, sizes and colors are known.
        images: (n, 3, H, H) uint8.
        slots: how many components per image are described; more are only counted.
    """
    n, _, height, width = images.shape
    pixels = images.astype(np.float32)
    edge = np.concatenate([pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1]], axis=2)
    background = np.median(edge, axis=2)[:, :, None, None]
    difference = pixels - background
    foreground = np.sqrt((difference**2).sum(1)) > FOREGROUND_DISTANCE
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    labels, _ = ndimage.label(foreground, structure=structure)
    flat = labels.ravel()
    area = np.bincount(flat)
    image_of = np.zeros(len(area), dtype=np.int64)
    image_of[flat] = np.repeat(np.arange(n), height * width)
    keep = np.flatnonzero((area >= MIN_COMPONENT_PIXELS) & (np.arange(len(area)) > 0))
    count = np.bincount(image_of[keep], minlength=n)
    rank = np.arange(len(keep)) - np.searchsorted(image_of[keep], image_of[keep])
    keep, rank = keep[rank < slots], rank[rank < slots]
    owner = image_of[keep]
    components = Components(
        count=count,
        shape=np.full((n, slots), -1),
        color=np.full((n, slots), -1),
        size=np.full((n, slots), -1),
        center=np.zeros((n, slots, 2)),
        overlap=np.zeros((n, slots)),
    )
    if len(keep) == 0:
        return components
    color, core = _core_colors(config, pixels, foreground, labels, keep)
    shape, size, overlap, center = _match(config, difference, labels, keep, owner, core - background[owner, :, 0, 0])
    components.color[owner, rank] = color
    components.shape[owner, rank] = np.where(overlap >= MIN_IOU, shape, -1)
    components.size[owner, rank] = size
    components.overlap[owner, rank] = overlap
    components.center[owner, rank] = center
    return components


def _core_colors(
    config: ShapesConfig, pixels: np.ndarray, foreground: np.ndarray, labels: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest palette color (P,) or -1, and mean color (P, 3) of each component's interior (its whole when it has none)."""
    cross = np.zeros((3, 3, 3), dtype=bool)
    cross[1] = ndimage.generate_binary_structure(2, 1)
    inner = np.where(ndimage.binary_erosion(foreground, structure=cross), labels, 0).ravel()
    size = labels.max() + 1
    means = []
    for mask in (inner, labels.ravel()):
        total = np.bincount(mask, minlength=size)[keep]
        sums = [np.bincount(mask, weights=pixels[:, c].ravel(), minlength=size)[keep] for c in range(3)]
        means.append((total, np.stack(sums, axis=1) / np.maximum(total, 1)[:, None]))
    (num_inner, inside), (_, whole) = means
    core = np.where(num_inner[:, None] > 0, inside, whole)
    palette = np.array([RGB[name] for name in config.colors], dtype=np.float64)
    distance = np.sqrt(((core[:, None] - palette) ** 2).sum(2))
    nearest = distance.argmin(1)
    return np.where(distance.min(1) <= COLOR_TOLERANCE, nearest, -1), core


def _match(
    config: ShapesConfig,
    difference: np.ndarray,
    labels: np.ndarray,
    keep: np.ndarray,
    owner: np.ndarray,
    direction: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best template of each component: shape (P,), size (P,), soft IoU (P,), center (P, 2) in pixels, x then y."""
    masks, kinds, half = _templates(config)
    margin = half + 1
    padded = np.pad(difference, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    padded_labels = np.pad(labels, ((0, 0), (margin, margin), (margin, margin)))
    offset = np.arange(-half, half + 1)
    length = np.maximum((direction**2).sum(1), 1.0)[:, None, None]

    def soft_mask(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """(P, w, w) share of the component's color around a pixel; other components and foreign colors count as empty."""
        y = (row + margin)[:, None, None] + offset[None, :, None]
        x = (column + margin)[:, None, None] + offset[None, None, :]
        local = padded[owner[:, None, None], :, y, x]  # (P, w, w, 3)
        alpha = np.clip((local @ direction[:, None, :, None])[..., 0] / length, 0.0, 1.0)
        stray = ((local - alpha[..., None] * direction[:, None, None]) ** 2).sum(3) > FOREIGN_DISTANCE**2
        label = padded_labels[owner[:, None, None], y, x]
        other = (label != 0) & (label != keep[:, None, None])
        return np.where(stray | other | (alpha < 0.1), 0.0, alpha)

    def centroid(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Soft center of mass (P,), (P,); every shape's center is its center of mass."""
        soft = soft_mask(row, column)
        mass = np.maximum(soft.sum((1, 2)), 1e-6)
        return row + (soft.sum(2) * offset).sum(1) / mass, column + (soft.sum(1) * offset).sum(1) / mass

    # labels of one image lie in one plane, so the mean of plane, row and column over a label is its hard centroid
    _, row, column = np.array(ndimage.center_of_mass(labels > 0, labels, keep)).T
    last = labels.shape[1] - 1
    row, column = (np.clip(np.rint(v), 0, last).astype(int) for v in centroid(*(np.rint(v).astype(int) for v in (row, column))))
    center_row, center_column = centroid(row, column)
    soft = soft_mask(row, column).reshape(len(keep), -1)
    step_row, step_column = (
        np.clip(np.floor((c - base + 0.5) * SUBPIXEL_STEPS), 0, SUBPIXEL_STEPS - 1).astype(int)
        for c, base in ((center_row, row), (center_column, column))
    )
    overlaps = np.empty((len(keep), len(kinds)))
    for index in range(len(kinds)):
        template = masks[step_row, step_column, index]
        common = np.minimum(template, soft).sum(1)
        overlaps[:, index] = common / np.maximum(template.sum(1) + soft.sum(1) - common, 1e-6)
    best = overlaps.argmax(1)
    center = np.stack([center_column, center_row], axis=1) + 0.5
    return kinds[best, 0], kinds[best, 1], overlaps.max(1), center


def verify(world: ShapesWorld, images: np.ndarray, caption_ids: np.ndarray) -> Verdict:
    """Compare images (n, 3, H, H) uint8 with the captions (n,) that they were made for.

    exact: the number of objects is right, every object has its shape, color and size, and the relation holds along the
    dominant axis. Attribute scores are the share of named objects with that attribute right, under the assignment of
    components to words that is best overall; a missing object has none right.
    """
    components = find_components(world.config, images)
    objects, relation = world.caption_objects(caption_ids)  # (n, K, 3), (n,)
    named = objects[:, :, 0] != ABSENT
    num_named = named.sum(1)
    names = np.array([RELATIONS.index(r) for r in world.config.relations])[relation]
    best: dict[str, np.ndarray] = {}
    best_score = np.full(len(images), -1.0)
    for order in ([0, 1], [1, 0]):
        found = {"shape": components.shape[:, order], "color": components.color[:, order], "size": components.size[:, order]}
        found["size"] = np.where(found["shape"] == ABSENT, ABSENT, found["size"])
        scores = {
            name: ((found[name] == objects[:, :, i]) & named).sum(1) / num_named
            for i, name in enumerate(("shape", "color", "size"))
        }
        scores["count"] = (components.count == num_named).astype(np.float64)
        scores["relation"] = _relation_holds(names, components.center[:, order], components.count) | (relation == ABSENT)
        total = sum(scores[name].astype(np.float64) for name in ATTRIBUTES)
        better = total > best_score
        best_score = np.where(better, total, best_score)
        best = {k: np.where(better, v, best.get(k, 0.0)).astype(np.float64) for k, v in scores.items()}
    exact = np.all([best[name] == 1.0 for name in ATTRIBUTES], axis=0)
    return Verdict(exact=exact, attributes=best, num_found=components.count)


def _relation_holds(names: np.ndarray, center: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(n,) whether the first component stands in the named relation to the second, along the larger of the two distances."""
    dx, dy = (center[:, 1] - center[:, 0]).T
    vertical = np.abs(dy) > np.abs(dx)
    holds = [vertical & (dy > 0), vertical & (dy < 0), ~vertical & (dx > 0), ~vertical & (dx < 0)]
    return np.choose(names, holds) & (count >= 2)
