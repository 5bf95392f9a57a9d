"""Wrong captions and broken sprites, for the verifier's error rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np

from bench.data.sprites_alphabet import GRID_CELLS, alphabet
from bench.data.sprites_config import Captions
from bench.data.sprites_render import objects, render
from bench.data.sprites_world import SpriteSplit, SpritesWorld

WORDS = ("number", "size", "color", "kind", "relation")


def one_word_changed(world: SpritesWorld, captions: Captions, generator: np.random.Generator, word: str = "") -> Captions:
    """The captions (n,) with one word of one phrase changed: of the given sort, or of any where it is empty.

    Numbers change where the sheet has room for it and relations where there is one; otherwise the kind changes.
    """
    c = world.config
    out = Captions(**{f.name: getattr(captions, f.name).copy() for f in fields(captions)})
    sizes = {"size": len(c.sizes), "color": len(c.colors), "kind": c.num_kinds, "relation": len(c.relations)}
    for row in range(len(captions)):
        phrase = int(generator.integers(captions.named[row].sum()))
        sort = word or str(generator.choice(WORDS))
        if sort == "number":
            room = c.max_objects - int(captions.number[row].sum()) + int(captions.number[row, phrase])
            others = [k for k in range(1, min(room, len(c.number_shares)) + 1) if k != captions.number[row, phrase]]
            if others:
                out.number[row, phrase] = generator.choice(others)
                continue
        elif sort == "relation" and phrase > 0:
            phrase -= 1
        if sort == "number" or (sort == "relation" and captions.relation[row, phrase : phrase + 1].max(initial=-1) < 0):
            sort = "kind"
        values = getattr(out, sort)
        values[row, phrase] = (values[row, phrase] + 1 + generator.integers(sizes[sort] - 1)) % sizes[sort]
    return out


def swapped(captions: Captions) -> Captions:
    """The captions (n,) with their first two phrases exchanged."""
    turned = {name: getattr(captions, name).copy() for name in ("number", "size", "color", "kind")}
    two = captions.named[:, 1] if captions.named.shape[1] > 1 else np.zeros(len(captions), dtype=bool)
    for values in turned.values():
        values[two, :2] = values[two, 1::-1]
    return Captions(relation=captions.relation, **turned)


Cells = np.ndarray
"""Cells (m, G, G) bool of sprites."""


def _flipped(number: int) -> Callable[[Cells], Cells]:
    """Turn a number of cells, filled or empty, into the other."""

    def change(cells: Cells) -> Cells:
        generator = np.random.default_rng(number)
        places = generator.random((len(cells), GRID_CELLS**2)).argsort(1)[:, :number]
        out = cells.reshape(len(cells), -1).copy()
        np.put_along_axis(out, places, ~np.take_along_axis(out, places, 1), 1)
        return out.reshape(cells.shape)

    return change


def _cut(cells: Cells) -> Cells:
    """Remove everything right of the middle column."""
    out = cells.copy()
    out[:, :, GRID_CELLS // 2 + 1 :] = False
    return out


def _shifted(cells: Cells) -> Cells:
    """Move the two lower rows by one cell to the side, where what leaves the frame is lost."""
    out = cells.copy()
    out[:, 3:, 1:], out[:, 3:, 0] = cells[:, 3:, :-1], False
    return out


BREAKERS: dict[str, Callable[[Cells], Cells]] = {
    "one cell of the first object wrong": _flipped(1),
    "two cells of the first object wrong": _flipped(2),
    "three cells of the first object wrong": _flipped(3),
    "right part of the first object missing": _cut,
    "two lower rows of the first object shifted by a cell": _shifted,
}


def broken(
    world: SpritesWorld, captions: Captions, indices: np.ndarray, split: SpriteSplit, change: Callable[[Cells], Cells]
) -> np.ndarray:
    """Renders (n, 3, H, H) of captions (n,) with the cells of each image's first object changed."""
    scene, c = objects(world, captions, indices, split), world.config
    first = np.unique(scene.image, return_index=True)[1]
    images = render(world, scene)
    for image, k, cells in zip(scene.image[first], first, change(alphabet()[scene.kind[first]]), strict=True):
        pixels = c.cell_pixels[scene.size[k]]
        top = scene.row[k] * c.field_pixels + scene.top[k]
        left = scene.column[k] * c.field_pixels + scene.left[k]
        mask = cells.repeat(pixels, 0).repeat(pixels, 1)
        window = images[image, :, top : top + len(mask), left : left + len(mask)]
        window[:] = np.where(mask, scene.rgb[k][:, None, None], scene.background[image][:, None, None])
    return images
