"""Images from disk or the hub: rows of a Hugging Face data set, decoded, cropped and paired with a class or a caption.

Letters: n images, H resolution.

`datasets` reads folders, WebDataset shards, parquet files and hub names into one table with random access; COCO's captions and
scikit-learn's digits become such a table too. Images are decoded here, so that one that cannot be read is named and skipped.
`datasets` and scikit-learn are imported where they are used: they take seconds, and planning opens no table.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench.config.data import ImageData
from bench.hub import missing

if TYPE_CHECKING:
    from datasets import Dataset


MAX_PIXELS = 178_956_970
"""Pillow's own limit, twice which it calls a decompression bomb; here the limit itself is one."""
FINGERPRINT_ROWS = 256
"""Rows spread over the data set whose bytes name its content."""


class UnreadableError(Exception):
    """An image that cannot be decoded, or a row without what the experiment names."""


def center_crop(image: Image.Image, resolution: int) -> Image.Image:
    """The central square of side `resolution`: box averages while twice as large, then bicubic (Dhariwal & Nichol 2021)."""
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = resolution / min(image.size)
    if scale != 1:
        size = (max(resolution, round(image.width * scale)), max(resolution, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency over white, 16-bit grey scaled to 8."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def decode_image(raw: bytes | str, resolution: int) -> np.ndarray:
    """An encoded image, or the path of one, to (3, H, H) uint8; of an animation the first frame.

    Raises:
        UnreadableError: when it cannot be decoded, or has more pixels than an honest image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableError(f"{image.width} x {image.height} pixels")
                return np.asarray(center_crop(to_rgb(image), resolution)).transpose(2, 0, 1)
    except UnreadableError:
        raise
    except Exception as error:  # decoders of broken files raise nearly anything
        raise UnreadableError(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}") from error


def _digits(split: str) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 grey values 0 to 16, as PNG: every fourth is "test", the rest "train"."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature
    from sklearn.datasets import load_digits

    found = load_digits()
    chosen = [number for number in range(len(found.target)) if (number % 4 == 3) == (split == "test")]
    rows = []
    for grey in found.images[chosen]:
        buffer = io.BytesIO()
        Image.fromarray(np.round(grey * 255 / 16).astype(np.uint8)).save(buffer, format="PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    return Dataset.from_dict({"image": rows, "label": found.target[chosen].tolist()}, features=features)


def _coco(folder: Path, split: str) -> Dataset:
    """COCO captions: the first caption of each image of annotations/captions_SPLIT.json, in the order of image ids."""
    from datasets import Dataset

    path = folder / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; --data must name the folder with annotations/ and {split}/ of COCO")
    content = json.loads(path.read_text())
    first: dict[int, str] = {}
    for note in sorted(content["annotations"], key=lambda note: note["id"]):
        first.setdefault(note["image_id"], note["caption"].strip())
    images = sorted((image for image in content["images"] if image["id"] in first), key=lambda image: image["id"])
    return Dataset.from_dict(
        {
            "image": [{"bytes": None, "path": str(folder / split / image["file_name"])} for image in images],
            "caption": [first[image["id"]] for image in images],
        }
    )


def _shards(pattern: str, kind: str) -> list[str]:
    """Files of a pattern, or all shards of a folder."""
    ending = {"webdataset": "*.tar", "parquet": "*.parquet"}[kind]
    found = sorted(glob(str(Path(pattern) / "**" / ending), recursive=True) if Path(pattern).is_dir() else glob(pattern))
    if not found:
        raise ValueError(f"no {ending} file at {pattern!r}; --data must name a folder or a pattern of {kind} shards")
    return found


def open_table(data: ImageData, split: str) -> Dataset:
    """The rows of a split.

    Raises:
        ValueError: when the data is not on this machine, or has no such split.
    """
    import datasets

    datasets.disable_progress_bars()
    if data.source == "digits":
        if split not in ("train", "test"):
            raise ValueError(f"the digits have the splits train and test, not {split!r}")
        return _digits(split)
    if not data.path:
        raise ValueError(f"data {data.name} has no path; give it with --data (DATA=... with make)")
    if data.source == "coco":
        return _coco(Path(data.path), split)
    if data.source != "huggingface" and not glob(data.path):
        raise ValueError(f"{data.path} does not exist; --data must name the {data.source} of {data.name}")
    try:
        if data.source == "imagefolder":
            return datasets.load_dataset("imagefolder", data_dir=data.path, split=split)
        if data.source in ("webdataset", "parquet"):
            files = {split.partition("[")[0]: _shards(data.path, data.source)}  # a split may be a slice, such as train[:99%]
            return datasets.load_dataset(data.source, data_files=files, split=split)
        return datasets.load_dataset(data.path, split=split)
    except (OSError, ConnectionError) as error:
        if data.source == "huggingface":
            raise ValueError(missing("the data set", data.path, " --repo-type dataset")) from error
        raise ValueError(f"{data.path} cannot be read as {data.source}: {' '.join(str(error).split())}") from error
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__ or error
        raise ValueError(f"{data.path} cannot be read as {data.source}: {' '.join(str(cause).split())}") from error


@dataclass(frozen=True)
class Row:
    """One image of a data set, not yet decoded."""

    name: str
    raw: bytes | str
    condition: int | str


class ImageSet:
    """Random access to the images of a split and their classes or captions."""

    def __init__(self, data: ImageData, split: str) -> None:
        """Opens the table; decodes nothing.

        Raises:
            ValueError: when the data is missing, lacks a column, or has other classes than the experiment says.
        """
        import datasets

        self.data = data
        table = open_table(data, split)
        columns = [data.image_column, data.condition_column.partition(".")[0]]
        for name in columns:
            if name not in table.column_names:
                raise ValueError(
                    f"data {data.name} has no column {name!r}; it has {', '.join(table.column_names)}: set image_column and "
                    "condition_column in the experiment"
                )
        if isinstance(table.features[data.image_column], datasets.Image):
            table = table.cast_column(data.image_column, datasets.Image(decode=False))
        self.class_names: list[str] = []
        if data.condition == "class":
            kind = table.features[data.condition_column]
            if getattr(kind, "dtype", "") == "string":
                table = table.class_encode_column(data.condition_column)
                kind = table.features[data.condition_column]
            self.class_names = list(getattr(kind, "names", [])) or [str(number) for number in range(data.num_classes)]
            if len(self.class_names) != data.num_classes:
                raise ValueError(
                    f"data {data.name} has {len(self.class_names)} classes, the experiment says {data.num_classes}; "
                    "correct num_classes"
                )
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def row(self, index: int) -> Row:
        """The row as stored.

        Raises:
            UnreadableError: when image or condition is missing.
        """
        data, found = self.data, self._table[int(index)]
        raw: Any = found[data.image_column]
        name = str(found.get("__key__") or f"row {index}")
        if isinstance(raw, dict):
            name = raw.get("path") or name
            raw = raw["bytes"] if raw.get("bytes") is not None else raw.get("path")
        column, _, key = data.condition_column.partition(".")
        condition = found[column][key] if key else found[column]
        if isinstance(condition, list):
            condition = condition[0] if condition else None
        if not isinstance(raw, bytes | str) or condition is None:
            raise UnreadableError(f"{name}: no {'image' if condition is not None else data.condition_column}")
        if data.condition == "class" and not 0 <= int(condition) < data.num_classes:
            raise UnreadableError(f"{name}: class {condition} is not below {data.num_classes}")
        return Row(name, raw, condition)

    def image(self, row: Row) -> np.ndarray:
        """(3, H, H) uint8.

        Raises:
            UnreadableError: naming the image.
        """
        try:
            return decode_image(row.raw, self.data.resolution)
        except UnreadableError as error:
            raise UnreadableError(f"{row.name}: {error}") from error

    def read(self, indices: range | np.ndarray, run: Callable[..., Any] = map) -> tuple[np.ndarray, list[int | str], list[str]]:
        """Images (n, 3, H, H), their conditions, and what could not be read. `run` maps, perhaps in parallel."""

        def one(index: int) -> tuple[np.ndarray, int | str] | str:
            try:
                row = self.row(index)
                return self.image(row), row.condition
            except UnreadableError as error:
                return str(error)

        found = list(run(one, indices))
        good = [entry for entry in found if not isinstance(entry, str)]
        side = self.data.resolution
        images = np.stack([image for image, _ in good]) if good else np.empty((0, 3, side, side), np.uint8)
        return images, [condition for _, condition in good], [entry for entry in found if isinstance(entry, str)]

    def fingerprint(self) -> str:
        """Hash of the number of rows and of the bytes and conditions of FINGERPRINT_ROWS of them."""
        digest = hashlib.sha256(str(len(self)).encode())
        for index in np.unique(np.linspace(0, len(self) - 1, FINGERPRINT_ROWS).astype(int)):
            try:
                row = self.row(int(index))
                content = row.raw if isinstance(row.raw, bytes) else Path(row.raw).read_bytes()
            except (UnreadableError, OSError):
                continue
            digest.update(hashlib.sha256(content).digest() + str(row.condition).encode())
        return digest.hexdigest()[:12]
