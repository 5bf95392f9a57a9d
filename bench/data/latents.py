"""The latent cache: training images encoded once, read by index from memory-mapped shards.

Letters: n images, B batch, V views of an image (1, or 2 where it is kept mirrored too), N tokens, C channels, M condition tokens.

A folder of safetensors shards of about SHARD_BYTES, each with `tokens` (moments (n, V, N, 2C) float16, or codes (n, V, N) uint16
or int32), `condition` (n, M) or (n, M, F), and `features` (n, V, P, F) float16 where a loss reads those of a frozen network.
Shards are written whole, so that a killed encoding resumes at the first missing one; `index.json` is written last and makes the
cache complete. Which image a training step sees is a function of (seed, step) alone: there is no loader state to save.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from bench.data.order import image_order
from bench.files import write_file, write_text
from bench.progress import format_bytes
from bench.randomness import WHOLE, Part, step_seed

INDEX = "index.json"
SHARD_BYTES = 256 * 2**20
NUMPY_TYPES = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "U16": np.uint16, "U8": np.uint8}


Batch = tuple[Tensor, Tensor, Tensor | None]
"""Tokens as the paradigm reads them (latents drawn from their posterior), condition tokens (B, M) int64 or (B, M, F) float32, and
features (B, P, F) float32 where the cache holds them."""


@dataclass(frozen=True)
class Encoded:
    """A few images as the cache stores them."""

    tokens: np.ndarray  # (n, V, N, 2C) float16 | (n, V, N) uint16 or int32
    condition: np.ndarray  # (n, M) integers | (n, M, F) float16
    skipped: list[str] = field(default_factory=list)
    """Images that could not be read, by name, with the reason."""
    features: np.ndarray | None = None  # (n, V, P, F) float16


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file, and where its raw bytes begin (8-byte length, header, bytes)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def memory_map(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as read-only memory maps of the same shapes, `tokens` (n, V, N, ...) among them."""
    header, begin = _header(path)
    maps: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            offset = begin + entry["data_offsets"][0]
            kind = NUMPY_TYPES[entry["dtype"]]
            maps[name] = np.memmap(path, dtype=kind, mode="r", offset=offset, shape=tuple(entry["shape"]))
    return maps


def fill_cache(
    folder: Path,
    num_images: int,
    row_bytes: int,
    encode: Callable[[range], Encoded],
    progress: Callable[[int], None],
    *,
    chunk: int,
    max_skipped: int = 0,
    about: dict[str, Any] | None = None,
) -> list[str]:
    """Encode images 0 .. num_images - 1 into a cache folder, going on where an earlier call ended.

    Args:
        row_bytes: what one image takes on disk.
        encode: encodes a range of images; called with at most `chunk` of them.
        max_skipped: how many images may be unreadable.
        about: what index.json also says.

    Returns:
        Images that could not be read, by name, with the reason.

    Raises:
        ValueError: when the disk is too small, or more images than allowed are unreadable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    per_shard = images_per_shard(row_bytes)
    starts = range(0, num_images, per_shard)
    paths = [folder / f"shard-{number:05d}.safetensors" for number in range(len(starts))]
    missing = sum(min(per_shard, num_images - start) for start, path in zip(starts, paths, strict=True) if not path.exists())
    check_disk(folder, missing * row_bytes)
    skipped: list[str] = []
    counts = []
    for start, path in zip(starts, paths, strict=True):
        stop = min(start + per_shard, num_images)
        if not path.exists():
            parts = []
            for first in range(start, stop, chunk):
                parts.append(encode(range(first, min(first + chunk, stop))))
                progress(min(first + chunk, stop))
                _check_skipped([*skipped, *(name for part in parts for name in part.skipped)], max_skipped, num_images)
            _save_shard(path, parts)
        found, lost = _shard_summary(path)
        counts.append(found)
        skipped += lost
        _check_skipped(skipped, max_skipped, num_images)
        progress(stop)
    if not sum(counts):
        raise ValueError(f"none of the {num_images} images could be read; the first: {skipped[0]}")
    write_text(folder / INDEX, json.dumps({"counts": counts, "skipped": skipped, **(about or {})}, indent=1))
    return skipped


def images_per_shard(row_bytes: int) -> int:
    """Images of a whole shard."""
    return max(1, SHARD_BYTES // row_bytes)


def is_complete(folder: Path) -> bool:
    """Whether every image of a cache is encoded."""
    return (folder / INDEX).exists()


def check_disk(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot fit.

    Raises:
        ValueError: naming what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder} needs {format_bytes(needed)} and its disk has {format_bytes(free)} free; make room, or set "
            "PARADIGM_BENCH_CACHE to a folder on a larger disk"
        )


def _check_skipped(skipped: list[str], allowed: int, num_images: int) -> None:
    if len(skipped) > allowed:
        raise ValueError(
            f"{len(skipped)} of the first {num_images} images cannot be read, {allowed} may (max_corrupt): "
            f"{'; '.join(skipped[:3])}; repair them, or raise max_corrupt in the experiment's data"
        )


def _save_shard(path: Path, parts: list[Encoded]) -> None:
    content = {
        "tokens": np.concatenate([part.tokens for part in parts]),
        "condition": np.concatenate([part.condition for part in parts]),
    }
    features = [part.features for part in parts if part.features is not None]
    if features:
        content["features"] = np.concatenate(features)
    about = {"skipped": json.dumps([name for part in parts for name in part.skipped])}
    write_file(path, lambda temporary: save_file(content, temporary, metadata=about))


def _shard_summary(path: Path) -> tuple[int, list[str]]:
    """Images in a shard, and the names of those that were skipped."""
    header, _ = _header(path)
    return header["tokens"]["shape"][0], json.loads(header["__metadata__"]["skipped"])


class TrainingData:
    """Batches by step from a latent cache."""

    def __init__(self, folder: Path) -> None:
        self.index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        counts = self.index["counts"]
        self._shards = [memory_map(folder / f"shard-{number:05d}.safetensors") for number in range(len(counts))]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def indices(self, seed: int, step: int, batch: int) -> np.ndarray:
        """(B,) image indices of a step: consecutive entries of one permutation per (seed, epoch)."""
        return image_order(seed, np.arange(step * batch, (step + 1) * batch), len(self))

    def rows(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Entries of a stored array (`tokens` or `condition`) by image index (B,), in that order."""
        shards = np.searchsorted(self._ends, indices, side="right")
        out = np.empty((len(indices), *self._shards[0][name].shape[1:]), dtype=self._shards[0][name].dtype)
        for shard in np.unique(shards):
            here = shards == shard
            first = self._ends[shard] - len(self._shards[shard][name])
            out[here] = self._shards[shard][name][indices[here] - first]
        return out

    @property
    def has_features(self) -> bool:
        """Whether features of a frozen network lie beside the tokens."""
        return "features" in self._shards[0]

    def batch(self, seed: int, step: int, batch: int, part: Part = WHOLE) -> Batch:
        """A part of a step's B images."""
        rows = part.rows(batch)
        indices = self.indices(seed, step, batch)[rows]
        condition = self.rows("condition", indices)
        condition_tokens = torch.from_numpy(condition.astype(np.float32 if condition.dtype == np.float16 else np.int64))
        stored = self.rows("tokens", indices)
        views = stored.shape[1]
        view = np.random.default_rng(step_seed(seed, step, "view")).integers(views, size=batch)[rows] if views > 1 else 0
        images = np.arange(len(indices))
        generator = torch.Generator().manual_seed(step_seed(seed, step, "posterior"))
        tokens = posterior_draw(stored[images, view], generator, batch, rows)
        features = torch.from_numpy(self.rows("features", indices)[images, view]).float() if self.has_features else None
        return tokens, condition_tokens, features


def posterior_draw(stored: np.ndarray, generator: torch.Generator, batch: int | None = None, rows: slice = slice(None)) -> Tensor:
    """Stored tokens (B, ...) as paradigms read them: codes (B, N) int64, or latents (B, N, C) drawn from moments (B, N, 2C).

    batch, rows: of a part of a batch, the images of the whole one and which of them these are.
    """
    if stored.dtype != np.float16:
        return torch.from_numpy(stored.astype(np.int64))
    mean, std = torch.from_numpy(stored).float().chunk(2, dim=2)
    return mean + std * torch.randn((batch or len(mean), *mean.shape[1:]), generator=generator)[rows]
