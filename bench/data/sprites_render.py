"""Captions of the sprites world to pixels: fields, places and colors drawn per image index, in whole numbers throughout.

Letters: n images, P phrases, M objects of a phrase, m objects in all, g fields per side, F pixels per field, H = g F.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from bench.data.shapes_world import RGB, hash_uniform
from bench.data.sprites_alphabet import alphabet
from bench.data.sprites_config import Captions, SpritesConfig
from bench.data.sprites_world import SpriteSplit, SpritesWorld

PLACES, APPEARANCE, SHEETS = 1, 2, 3
"""Purposes of the streams of draws; 0 is the captions'."""
CHUNK_IMAGES = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """The m objects of n images, with the images' backgrounds."""

    image: np.ndarray  # (m,) int64
    kind: np.ndarray  # (m,) int64
    size: np.ndarray  # (m,) int64
    color: np.ndarray  # (m,) int64
    row: np.ndarray  # (m,) int64, of the field
    column: np.ndarray  # (m,) int64, of the field
    top: np.ndarray  # (m,) int64, pixels inside the field
    left: np.ndarray  # (m,) int64, pixels inside the field
    rgb: np.ndarray  # (m, 3) int64
    background: np.ndarray  # (n, 3) int64


@cache
def sprite_mask(config: SpritesConfig) -> np.ndarray:
    """Which pixels of a field each kind covers at its upper left corner, (sizes, S, F, F) bool."""
    masks = np.zeros((len(config.sizes), config.num_kinds, config.field_pixels, config.field_pixels), dtype=bool)
    for size, pixels in enumerate(config.cell_pixels):
        grown = alphabet()[: config.num_kinds].repeat(pixels, 1).repeat(pixels, 2)
        masks[size, :, : grown.shape[1], : grown.shape[2]] = grown
    return masks


def offsets(config: SpritesConfig, size: int) -> range:
    """Where a sprite of a size may begin inside its field, in pixels."""
    return range(config.margin_pixels[size], config.margin_pixels[size] + config.free_pixels + 1)


def _whole(draw: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Uniform numbers in [0, 1) to whole numbers below count."""
    return (draw * count).astype(np.int64)


def places(world: SpritesWorld, captions: Captions, indices: np.ndarray, split: SpriteSplit) -> tuple[np.ndarray, np.ndarray]:
    """Field row and first column (n, P) of each phrase, whose objects stand side by side.

    One phrase after the other takes any place that is free and where its relation to the phrase before holds: all objects of the
    one lie on its side of the other's, and the distance along the relation is larger than across it. An image in which no place
    is left begins again.
    """
    n, most = captions.number.shape
    row, column = np.zeros((n, most), dtype=np.int64), np.zeros((n, most), dtype=np.int64)
    missing, attempt = np.arange(n), 0
    while len(missing):
        part = captions[missing]
        draw = hash_uniform(world.stream(split, PLACES, attempt), indices[missing], most)
        failed = np.zeros(len(missing), dtype=bool)
        for p in range(most):
            free = _free(world.config, part, row[missing], column[missing], p)  # (n, g g)
            count = free.sum(1)
            failed |= part.named[:, p] & (count == 0)
            rank = np.minimum(_whole(draw[:, p], count), count - 1)
            place = (free.cumsum(1) > rank[:, None]).argmax(1)
            row[missing, p], column[missing, p] = np.divmod(place, world.config.fields_per_side)
        missing, attempt = missing[failed], attempt + 1
    return row, column


def _free(config: SpritesConfig, captions: Captions, row: np.ndarray, column: np.ndarray, p: int) -> np.ndarray:
    """(n, g g) where phrase p may begin: inside the sheet, beside the phrases before it, in its relation to the last of them."""
    side, number = config.fields_per_side, np.maximum(captions.number, 1)
    y, x = (v.ravel() for v in np.indices((side, side)))
    wide = number[:, p, None]
    free = x + wide <= side
    for q in range(p):
        together = (row[:, q, None] == y) & (x < (column + number)[:, q, None]) & (column[:, q, None] < x + wide)
        free &= ~together
    if p:
        end = (column + number)[:, p - 1, None]
        down = y - row[:, p - 1, None]
        right = 2 * x + wide - end - column[:, p - 1, None]  # twice the distance of the middles
        holds = {"above": (down > 0) & (2 * down > np.abs(right)), "left of": (x >= end) & (right > 2 * np.abs(down))}
        for index, name in enumerate(config.relations):
            free &= holds[name] | (captions.relation[:, p - 1, None] != index)
    return free


def objects(world: SpritesWorld, captions: Captions, indices: np.ndarray, split: SpriteSplit) -> Objects:
    """Objects that obey captions (n,), with what no caption names drawn per image index (n,)."""
    c, (n, most) = world.config, captions.number.shape
    members = len(c.number_shares)
    row, column = places(world, captions, indices, split)
    draw = hash_uniform(world.stream(split, APPEARANCE), indices, 4 + 5 * most * members)
    image, phrase, member = np.nonzero(np.arange(members) < captions.number[:, :, None])
    own = draw[:, 4:].reshape(n, most, members, 5)[image, phrase, member]  # (m, 5)
    size, color = captions.size[image, phrase], captions.color[image, phrase]
    return Objects(
        image=image,
        kind=captions.kind[image, phrase],
        size=size,
        color=color,
        row=row[image, phrase],
        column=column[image, phrase] + member,
        **_appearance(c, size, color, own),
        background=_backgrounds(c, draw[:, :4]),
    )


def _appearance(config: SpritesConfig, size: np.ndarray, color: np.ndarray, draw: np.ndarray) -> dict[str, np.ndarray]:
    """Places inside the field and jittered colors of m objects, from draws (m, 5)."""
    first = np.array([offsets(config, z).start for z in range(len(config.sizes))])[size]
    free = np.array([len(offsets(config, z)) for z in range(len(config.sizes))])[size]
    jitter = config.color_jitter
    rgb = np.array([RGB[name] for name in config.colors])[color] + _whole(draw[:, 2:], 2 * jitter + 1) - jitter
    return {"top": first + _whole(draw[:, 0], free), "left": first + _whole(draw[:, 1], free), "rgb": np.clip(rgb, 0, 255)}


def _backgrounds(config: SpritesConfig, draw: np.ndarray) -> np.ndarray:
    """A light, nearly grey color per image, (n, 3), from draws (n, 4)."""
    low, high = config.background_range
    return low + _whole(draw[:, :1], high - low + 1) + _whole(draw[:, 1:], 7) - 3


def render(world: SpritesWorld, scene: Objects) -> np.ndarray:
    """Images of the objects, (n, 3, H, H) uint8."""
    c, masks = world.config, sprite_mask(world.config)
    n, g, pixels = len(scene.background), c.fields_per_side, c.field_pixels
    images = np.repeat(scene.background.astype(np.uint8), c.resolution**2, axis=1).reshape(n, 3, g, pixels, g, pixels)
    step = np.arange(pixels)
    for start in range(0, len(scene.image), CHUNK_IMAGES):
        part = slice(start, start + CHUNK_IMAGES)
        y = step[None, :] - scene.top[part, None]  # (m, F): the mask's row behind each pixel row
        x = step[None, :] - scene.left[part, None]
        inside = (y >= 0)[:, :, None] & (x >= 0)[:, None]
        mask = masks[scene.size[part, None, None], scene.kind[part, None, None], y[:, :, None], x[:, None]] & inside
        where = (scene.image[part], slice(None), scene.row[part], slice(None), scene.column[part])
        fields = images[where]  # (m, 3, F, F)
        images[where] = np.where(mask[:, None], scene.rgb[part].astype(np.uint8)[:, :, None, None], fields)
    return images.reshape(n, 3, c.resolution, c.resolution)


def render_captions(world: SpritesWorld, captions: Captions, indices: np.ndarray, split: SpriteSplit) -> np.ndarray:
    """One image for each caption (n,), (n, 3, H, H) uint8, with the nuisances of the image indices (n,)."""
    return render(world, objects(world, captions, indices, split))


def render_split(world: SpritesWorld, split: SpriteSplit, indices: np.ndarray) -> tuple[np.ndarray, Captions]:
    """Images (n, 3, H, H) uint8 and captions (n,) of a split's image indices."""
    captions = world.draw(split, indices)
    return render_captions(world, captions, indices, split), captions


SMALL_SHARE = 2 / 3
"""Of the objects on training sheets: the smaller a sprite, the harder it is to rebuild."""


def sheets(world: SpritesWorld, indices: np.ndarray, share: float) -> Objects:
    """Objects of sheets (n,) without captions: a field holds one with probability `share`, all kinds equally likely, no held-out
    pair of kind and color. Autoencoders and probe learn from them: what measures should know the tail.
    """
    c, n = world.config, len(indices)
    g = c.fields_per_side
    draw = hash_uniform(world.stream("train", SHEETS), indices, 4 + 9 * g * g)
    each = draw[:, 4:].reshape(n, g, g, 9)
    image, row, column = np.nonzero(each[..., 0] < share)
    own = each[image, row, column]
    kind, size = _whole(own[:, 1], c.num_kinds), (own[:, 2] >= SMALL_SHARE).astype(np.int64)
    color = (world.held_out_color(kind) + 1 + _whole(own[:, 3], len(c.colors) - 1)) % len(c.colors)
    return Objects(
        image=image,
        kind=kind,
        size=size,
        color=color,
        row=row,
        column=column,
        **_appearance(c, size, color, own[:, 4:]),
        background=_backgrounds(c, draw[:, :4]),
    )
