"""The exact verifier of the sprites world: reads every field of a sheet as a word of the code, and compares with the caption.

Letters: n images, m occupied fields, P phrases, K object slots, S kinds, g fields per side, F pixels per field, G cells per
side of a sprite.

Kinds differ in at least `MIN_CELLS` cells, so a picture within half of that of a kind is within it of no other: decoding to the
nearest kind is unique, and what is farther from all is no sprite. The verifier is a fixed function: never train or select on it
over the test split. What it does not do: judge anything that the caption does not name (background, place inside a field).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from bench.data.shapes_world import ABSENT, RGB
from bench.data.sprites_alphabet import GRID_CELLS, MIN_CELLS, alphabet
from bench.data.sprites_config import Captions, SpritesConfig
from bench.data.sprites_render import offsets
from bench.data.sprites_world import SpritesWorld
from bench.evaluate.verifier import ATTRIBUTES, COLOR_TOLERANCE, FOREGROUND_DISTANCE, FOREIGN_DISTANCE, Verdict

RADIUS_CELLS = MIN_CELLS / 2
"""Cells by which a picture may differ from a kind; at this radius no picture is near two kinds."""
MIN_OBJECT_PIXELS = 12
"""Foreground pixels from which a field counts as occupied; the smallest sprite has 36."""
CORE_SHARE = 0.75
"""Pixels at least this near to the field's strongest color say what its color is."""
SOFT_LOW, SOFT_HIGH = 0.25, 0.75
"""Shares of the object's color that count as nothing and as all: a blurred edge is no missing cell."""
SLACK_PIXELS = 1
"""How far outside the places that the renderer uses a sprite is still looked for."""
CHUNK_FIELDS = 1024


@dataclass(frozen=True, slots=True)
class SpriteVerdict(Verdict):
    """A verdict that also says which phrases hold; `shape` is the kind."""

    phrases: np.ndarray  # (n, P) float64, share of the phrase's objects with kind, color and size right
    found: Fields

    def reasons(self) -> list[str]:
        return [reason.replace("shape", "kind") for reason in Verdict.reasons(self)]


@dataclass(frozen=True, slots=True)
class Fields:
    """The occupied fields of n images in reading order."""

    image: np.ndarray  # (m,) int64
    row: np.ndarray  # (m,) int64
    column: np.ndarray  # (m,) int64
    kind: np.ndarray  # (m,) int64, -1 when no sprite is near
    size: np.ndarray  # (m,) int64, -1 likewise
    color: np.ndarray  # (m,) int64, -1 when no palette color is near
    distance: np.ndarray  # (m,) float64, cells to the nearest kind


def read_fields(config: SpritesConfig, images: np.ndarray) -> Fields:
    """Find, color and decode every occupied field of images (n, 3, H, H) uint8."""
    n, g, pixels = len(images), config.fields_per_side, config.field_pixels
    edge = np.concatenate([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], axis=2)
    background = np.median(edge, axis=2).astype(np.float32)
    fields = images.reshape(n, 3, g, pixels, g, pixels).transpose(0, 2, 4, 3, 5, 1)  # (n, g, g, F, F, 3)
    far = ((fields - background[:, None, None, None, None]) ** 2).sum(5) > FOREGROUND_DISTANCE**2
    image, row, column = np.nonzero(far.sum((3, 4)) >= MIN_OBJECT_PIXELS)
    kind, size, color = (np.full(len(image), ABSENT) for _ in range(3))
    distance = np.zeros(len(image))
    for start in range(0, len(image), CHUNK_FIELDS):
        part = slice(start, start + CHUNK_FIELDS)
        difference = fields[image[part], row[part], column[part]].astype(np.float32) - background[image[part], None, None]
        direction = _strongest_color(difference)
        color[part] = _nearest_color(config, direction + background[image[part]])
        kind[part], size[part], distance[part] = _decode(config, _soft_mask(difference, direction))
    return Fields(image, row, column, kind, size, color, distance)


def _strongest_color(difference: np.ndarray) -> np.ndarray:
    """Mean difference from the background (m, 3) over the pixels that are nearly as far from it as the farthest tenth."""
    strength = np.sqrt((difference**2).sum(3)).reshape(len(difference), -1)
    core = strength >= CORE_SHARE * np.quantile(strength, 0.95, axis=1)[:, None]
    total = np.einsum("mp,mpc->mc", core.astype(np.float32), difference.reshape(len(difference), -1, 3))
    return total / core.sum(1)[:, None]


def _nearest_color(config: SpritesConfig, rgb: np.ndarray) -> np.ndarray:
    palette = np.array([RGB[name] for name in config.colors], dtype=np.float32)
    distance = np.sqrt(((rgb[:, None] - palette) ** 2).sum(2))
    return np.where(distance.min(1) <= COLOR_TOLERANCE, distance.argmin(1), ABSENT)


def _soft_mask(difference: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(m, F, F) how much of each pixel is the object: 0 for the background and for foreign colors."""
    length = np.maximum((direction**2).sum(1), 1.0)[:, None, None]
    alpha = np.einsum("myxc,mc->myx", difference, direction) / length
    stray = ((difference - alpha[..., None] * direction[:, None, None]) ** 2).sum(3) > FOREIGN_DISTANCE**2
    return np.where(stray, 0.0, np.clip((alpha - SOFT_LOW) / (SOFT_HIGH - SOFT_LOW), 0.0, 1.0)).astype(np.float32)


def searched(config: SpritesConfig, size: int) -> range:
    """Where a sprite of a size is looked for inside its field, in pixels: where the renderer may put it, and a little around."""
    places = offsets(config, size)
    last = config.field_pixels - GRID_CELLS * config.cell_pixels[size]
    return range(max(0, places.start - SLACK_PIXELS), min(last, places.stop - 1 + SLACK_PIXELS) + 1)


def _decode(config: SpritesConfig, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest kind (m,), size (m,) and distance in cells (m,) of soft masks (m, F, F); -1 where none is within the radius.

    The distance of a mask and a sprite at a place is the area in which they differ: filled + mask - 2 common.
    """
    m, pixels = len(mask), config.field_pixels
    patterns = alphabet()[: config.num_kinds].reshape(config.num_kinds, -1).astype(np.float32)
    filled = patterns.sum(1)
    integral = np.zeros((m, pixels + 1, pixels + 1), dtype=np.float32)
    integral[:, 1:, 1:] = mask.cumsum(1).cumsum(2)
    total = integral[:, -1, -1]
    best, kind, size = np.full(m, np.inf), np.full(m, ABSENT), np.full(m, ABSENT)
    for z, cell in enumerate(config.cell_pixels):
        lines = np.arange(GRID_CELLS + 1) * cell
        for top in searched(config, z):
            for left in searched(config, z):
                corners = integral[:, top + lines][:, :, left + lines]
                cells = np.diff(np.diff(corners, axis=1), axis=2).reshape(m, -1)
                # area differing = cell^2 filled + total - 2 common; its minimum over kinds needs no more than this
                differing = filled * cell**2 - 2 * cells @ patterns.T
                nearest = differing.argmin(1)
                area = differing[np.arange(m), nearest] + total
                better = area < best
                best, kind = np.where(better, area, best), np.where(better, nearest, kind)
                size = np.where(better, z, size)
    distance = best / np.array(config.cell_pixels)[size] ** 2
    near = distance < RADIUS_CELLS
    return np.where(near, kind, ABSENT), np.where(near, size, ABSENT), distance


def verify(world: SpritesWorld, images: np.ndarray, captions: Captions) -> SpriteVerdict:
    """Compare images (n, 3, H, H) uint8 with the captions (n,) that they were made for.

    exact: as many fields are occupied as objects are named, every object has its kind, color and size, and every relation holds:
    all objects of a phrase lie on their side of the next phrase's, and the distance of the middles is larger along the relation
    than across it. Attribute scores are shares of named objects, or of relations, under the assignment of fields to named
    objects that has most attributes right; a missing object has none right.
    """
    return compare(world, read_fields(world.config, images), captions)


def compare(world: SpritesWorld, found: Fields, captions: Captions) -> SpriteVerdict:
    """Compare what was read off the fields of n images with captions (n,)."""
    n, slots = len(captions), world.config.max_objects
    num_found = np.bincount(found.image, minlength=n)
    rank = np.arange(len(found.image)) - np.searchsorted(found.image, found.image)
    kept = rank < slots
    seen = {name: np.full((n, slots), ABSENT) for name in ("kind", "color", "size", "row", "column")}
    for name, values in seen.items():
        values[found.image[kept], rank[kept]] = getattr(found, name)[kept]
    phrase = _phrase_of_slots(captions, slots)
    named = phrase != ABSENT
    wanted = {name: np.where(named, np.take_along_axis(getattr(captions, name), phrase, 1), ABSENT) for name in COMPARED}
    agree = [(wanted[a][:, :, None] == seen[a][:, None]) & named[:, :, None] & (seen[a] >= 0)[:, None] for a in COMPARED]
    chosen = _assign(np.sum(agree, axis=0))
    right = {a: np.take_along_axis(each, chosen[:, :, None], 2)[:, :, 0] for a, each in zip(COMPARED, agree, strict=True)}
    num_named = named.sum(1)
    place = {name: np.take_along_axis(seen[name], chosen, 1) for name in ("row", "column")}
    scores = {
        "count": (num_found == num_named).astype(np.float64),
        "shape": right["kind"].sum(1) / num_named,
        "color": right["color"].sum(1) / num_named,
        "size": right["size"].sum(1) / num_named,
        "relation": _relations(world, captions, phrase, place["row"], place["column"]),
    }
    whole = right["kind"] & right["color"] & right["size"]
    of_phrase = np.stack([(whole & (phrase == p)).sum(1) for p in range(captions.number.shape[1])], axis=1)
    return SpriteVerdict(
        exact=np.all([scores[name] == 1.0 for name in ATTRIBUTES], axis=0),
        attributes=scores,
        num_found=num_found,
        phrases=of_phrase / np.maximum(captions.number, 1),
        found=found,
    )


COMPARED = ("kind", "color", "size")


def _phrase_of_slots(captions: Captions, slots: int) -> np.ndarray:
    """(n, K) the phrase that names each object, -1 beyond the last."""
    ends = captions.number.cumsum(1)
    phrase = (np.arange(slots)[None, :, None] >= ends[:, None]).sum(2)
    return np.where(np.arange(slots) < ends[:, -1:], phrase, ABSENT)


def _assign(agreement: np.ndarray) -> np.ndarray:
    """For each named object the field (n, K) under the assignment with most agreement (n, K named, K found)."""
    return np.array([linear_sum_assignment(each, maximize=True)[1] for each in agreement])


def _relations(world: SpritesWorld, captions: Captions, phrase: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """(n,) share of the caption's relations that hold between the fields of its phrases; 1 where it has none."""
    num, hold = np.zeros(len(captions)), np.zeros(len(captions))
    present = row >= 0
    for p in range(captions.relation.shape[1]):
        first, second = (phrase == p), (phrase == p + 1)
        complete = (present | ~(first | second)).all(1)
        gap, distance = {}, {}
        for name, value in (("above", row), ("left of", column)):
            gap[name] = np.where(second, value, np.inf).min(1) - np.where(first, value, -np.inf).max(1)
            middles = [(value * each).sum(1) / np.maximum(each.sum(1), 1) for each in (first, second)]
            distance[name] = middles[1] - middles[0]
        other = {"above": "left of", "left of": "above"}
        for index, name in enumerate(world.config.relations):
            asked = captions.relation[:, p] == index
            holds = complete & (gap[name] > 0) & (distance[name] > np.abs(distance[other[name]]))
            num, hold = num + asked, hold + (asked & holds)
    return np.where(num > 0, hold / np.maximum(num, 1), 1.0)
