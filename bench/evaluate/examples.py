"""Examples of one run for the page: diverse conditions, a real image beside each, the judge's verdict and its reason.

Letters: n images, k examples, S pixels of a side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

NUM_EXAMPLES = {"test": 24, "held_out": 12, "uniform": 12}
"""Per split at most: 48 images and their real ones of 32 pixels are about 90 KB."""
GOLDEN_RATIO = (5**0.5 - 1) / 2
LARGEST_SIDE = 64
"""Pixels of an image on the sheet; larger images are reduced."""
COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Examples:
    """Some images of one split and what is said of them."""

    group: str
    """What kind of conditions they are, as a reader should see it."""
    prompts: list[str]  # k
    images: Tensor  # (k, 3, H, H) uint8
    real: Tensor | None = None  # (k, 3, H, H) uint8
    obeyed: list[bool] | None = None  # k; None where nothing can tell
    reasons: list[str] | None = None  # k; empty where the condition is obeyed


def named_examples(group: str, prompts: list[str], images: Tensor, real: Tensor | None, said: list[str] | None) -> Examples:
    """Examples (k, 3, H, H) whose prompts (k,) are names of classes, and what a classifier says (k,) that the images show."""
    if said is None:
        return Examples(group, prompts, images, real)
    obeyed = [found == wanted for found, wanted in zip(said, prompts, strict=True)]
    reasons = ["" if right else f"looks like {found}" for found, right in zip(said, obeyed, strict=True)]
    return Examples(group, prompts, images, real, obeyed, reasons)


def example_places(num: int, split: str) -> np.ndarray:
    """Places (k,) of examples among num conditions: evenly over the whole list, whose neighbors are alike, and the first few far
    apart (steps of the golden ratio)."""
    places = np.unique(np.linspace(0, num - 1, min(num, NUM_EXAMPLES[split])).round().astype(int))
    return places[np.argsort(np.argsort(np.arange(len(places)) * GOLDEN_RATIO % 1.0))]


def save_examples(found: Iterable[Examples], path: Path) -> None:
    """All examples as one PNG, each generated image before its real one, COLUMNS in a row.

    The file's text `examples` is JSON: side, columns, and items with caption, group, obeyed, reason, and place and real, which
    say where the two images are on the sheet.
    """
    pictures: list[np.ndarray] = []
    items = []
    for part in found:
        for i, prompt in enumerate(part.prompts):
            item = {"caption": prompt, "group": part.group, "place": len(pictures)}
            item["obeyed"] = None if part.obeyed is None else bool(part.obeyed[i])
            item["reason"] = "" if part.reasons is None else part.reasons[i]
            pictures.append(_small(part.images[i]))
            item["real"] = None if part.real is None else len(pictures)
            if part.real is not None:
                pictures.append(_small(part.real[i]))
            items.append(item)
    if not pictures:
        return
    side = pictures[0].shape[0]
    sheet = np.full((-(-len(pictures) // COLUMNS) * side, COLUMNS * side, 3), 255, dtype=np.uint8)
    for place, picture in enumerate(pictures):
        y, x = place // COLUMNS * side, place % COLUMNS * side
        sheet[y : y + side, x : x + side] = picture
    text = PngInfo()
    text.add_itxt("examples", json.dumps({"side": side, "columns": COLUMNS, "items": items}, ensure_ascii=False))
    Image.fromarray(sheet).save(path, pnginfo=text, optimize=True)


def _small(image: Tensor) -> np.ndarray:
    """An image (3, H, H) as (S, S, 3), by a whole factor so that means of pixels stay exact."""
    side = image.shape[-1]
    factor = -(-side // LARGEST_SIDE)
    if factor > 1:
        pixels = torch.nn.functional.avg_pool2d(image[None].float(), factor)[0]
        image = pixels.round().to(torch.uint8)
    return image.permute(1, 2, 0).contiguous().numpy()
