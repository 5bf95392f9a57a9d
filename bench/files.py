"""Files written whole or not at all, read with an error that names the damage, and their hashes. No torch."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def write_file(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file by `save(temporary path)`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")  # two machines may have one process number
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_file(path, lambda temporary: temporary.write_text(text))


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write a JSONL file anew."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line, flushed."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: when it holds something else, or was damaged.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it, or delete it and repeat the command that wrote it") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object; restore it, or delete it and repeat the command that wrote it")
    return found


def read_lines(path: Path, keys: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """All records of a JSONL file; a last line cut off by a kill is dropped.

    Args:
        keys: what every record must have as a number.

    Raises:
        ValueError: naming a line that was damaged, or lacks a key.
    """
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}, is damaged ({error}); delete the line, or train the run again") from error
        if not isinstance(record, dict) or not all(isinstance(record.get(key), int | float) for key in keys):
            wanted = f"an object with {', '.join(keys)}" if keys else "an object"
            raise ValueError(f"{path}, line {number}, is not {wanted}; was it written by another version of paradigm-bench?")
        records.append(record)
    return records


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors (...) of a safetensors file, by name.

    Raises:
        ValueError: when it is damaged, or no such file.
    """
    from safetensors import SafetensorError  # imported late: help needs neither it nor torch
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}); restore it, or make it again") from error


def file_hash(path: Path, digits: int = 12) -> str:
    """First hexadecimal digits of a file's SHA-256; empty when it is missing. A file that has not changed is read once."""
    if not path.is_file():
        return ""
    state = path.stat()
    return _unchanged(path, state.st_mtime_ns, state.st_size)[:digits]


def sha256(path: Path) -> str:
    """Hash of a file's bytes as they are now, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _unchanged(path: Path, modified: int, size: int) -> str:
    return sha256(path)
