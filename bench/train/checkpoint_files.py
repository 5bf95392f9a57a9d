"""Checkpoints that survive kills: written whole, synced, checked by their hash; a damaged one is named and the last one used.

A checkpoint is Lightning's file (tensors and plain values, read with weights_only) beside a file with its SHA-256. The hash is
written first, so that a checkpoint without its hash, or with another, is one that was not finished or was damaged since.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bench.files import sha256, write_file
from bench.results.folder import checkpoints

KEPT = 2
"""Newest checkpoints of a running segment; the second one is for when the first is damaged."""


def hash_file(path: Path) -> Path:
    """Where a checkpoint's hash lies."""
    return path.with_name(path.name + ".sha256")


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk, where the file system can say so."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Write a checkpoint by `save(temporary path)`; afterwards it is whole and on the disk, or not there."""

    def save_with_hash(temporary: Path) -> None:
        save(temporary)
        _sync(temporary)
        hash_file(path).write_text(sha256(temporary))
        _sync(hash_file(path))

    write_file(path, save_with_hash)
    _sync(path.parent)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is there and has the hash that it was written with."""
    return path.is_file() and hash_file(path).is_file() and sha256(path) == hash_file(path).read_text().strip()


def remove(path: Path) -> None:
    """Delete a checkpoint and its hash."""
    path.unlink(missing_ok=True)
    hash_file(path).unlink(missing_ok=True)


def newest_whole(folder: Path, log: Callable[[str], None], below: float = float("inf")) -> Path | None:
    """The checkpoint with the largest number below a limit that is whole; damaged ones are named and deleted."""
    for number, path in reversed(checkpoints(folder)):
        if number >= below:
            continue
        if is_whole(path):
            return path
        log(f"checkpoint {path} is damaged; using the one before it")
        remove(path)
    return None


def prune(folder: Path, kept: int = KEPT) -> None:
    """Delete all but the newest checkpoints of a folder."""
    for _, path in checkpoints(folder)[:-kept]:
        remove(path)
