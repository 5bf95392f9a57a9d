"""A procedural world as a Croissant description (mlcommons.org/croissant, format 1.0): JSON-LD about a file of captions, and how
the images behind them are made."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import Any, get_args

import numpy as np

from bench.data.open import open_data
from bench.data.shapes_data import TokenizedShapes
from bench.data.shapes_world import Split
from bench.data.sprites_data import TokenizedSprites
from bench.data.sprites_world import SpriteSplit

NUM_IMAGES = 256
"""Captions of each split in the file; a world has as many images as anybody wants."""
LICENSE = "https://www.apache.org/licenses/LICENSE-2.0"
PUBLISHED = "2026-11-21"
FIELDS = {
    "split": ("sc:Text", "train, or captions that training never shows"),
    "index": ("sc:Integer", "which image of the split; it and the split decide every pixel"),
    "caption": ("sc:Text", "what the image shows; everything else is drawn by chance"),
}
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""Of the specification, section "Croissant in a nutshell"."""


def captions(world: str) -> list[tuple[str, int, str]]:
    """Split, index and caption of the first images of every split.

    Raises:
        ValueError: for a world that does not exist.
    """
    dataset, indices = open_data(world), np.arange(NUM_IMAGES)
    found: list[tuple[str, int, str]] = []
    if isinstance(dataset, TokenizedSprites):
        for split in get_args(SpriteSplit):
            drawn = dataset.world.draw(split, indices)
            found += [(split, row, dataset.world.text(drawn, row)) for row in range(NUM_IMAGES)]
        return found
    assert isinstance(dataset, TokenizedShapes)
    for split in get_args(Split):
        ids = dataset.world.caption_ids(split, indices)
        found += [(split, row, dataset.world.caption_text(int(number))) for row, number in enumerate(ids)]
    return found


def describe_world(world: str, file_name: str) -> tuple[str, dict[str, Any]]:
    """The captions as CSV and the description as JSON-LD.

    Args:
        world: its name, such as "shapes32".
        file_name: under which the captions lie beside the description.

    Raises:
        ValueError: for a world that does not exist.
    """
    dataset, text = open_data(world), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows(captions(world))
    content = text.getvalue()
    about = (
        f"Procedural captioned images of {dataset.resolution} x {dataset.resolution} pixels, {dataset.data_id}. An image is a "
        "function of its split and index (paradigm-bench, bench/data), so that there are no image files: this file has the "
        f"captions of the first {NUM_IMAGES} images of every split. No person made or labeled an image."
    )
    return content, {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": world,
        "description": about,
        "license": LICENSE,
        "url": LICENSE,
        "version": "1.0.0",
        "datePublished": PUBLISHED,
        "creator": {"@type": "sc:Organization", "name": "The paradigm-bench authors"},
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file_name,
                "name": file_name,
                "contentUrl": file_name,
                "encodingFormat": "text/csv",
                "sha256": hashlib.sha256(content.encode()).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "key": [{"@id": "images/split"}, {"@id": "images/index"}],
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"images/{name}",
                        "name": name,
                        "description": meaning,
                        "dataType": kind,
                        "source": {"fileObject": {"@id": file_name}, "extract": {"column": name}},
                    }
                    for name, (kind, meaning) in FIELDS.items()
                ],
            }
        ],
    }
