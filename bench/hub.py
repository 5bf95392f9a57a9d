"""Files of networks that others trained: found on this machine first, hashed, and fetched only where the user allows it.

Nothing is downloaded unless `--download` is given: `forbid_downloads` sets the switches that the Hugging Face libraries obey.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from bench.files import file_hash, read_json, write_text

T = TypeVar("T")


def cache_root() -> Path:
    """Where the suite keeps what is made once: of data sets of images, and of this machine."""
    given = os.environ.get("PARADIGM_BENCH_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "paradigm-bench"


def once_per_machine(what: str, key: object, find: Callable[[], T]) -> T:
    """What `find` says of this machine, a value of JSON: kept in the cache, and found anew where it was not kept or is damaged.

    Args:
        what: names the file.
        key: whose text decides whether what was kept still holds.
    """
    path = cache_root() / f"{what}-{hashlib.sha256(str(key).encode()).hexdigest()[:12]}.json"
    try:
        kept: T = read_json(path)["found"]
        return kept
    except (OSError, ValueError, KeyError):
        found = find()
    with contextlib.suppress(OSError):  # a home that cannot be written: found anew each time
        write_text(path, json.dumps({"of": str(key), "found": found}) + "\n")
    return found


SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def forbid_downloads() -> None:
    """Keep transformers, diffusers and datasets to what is on this machine, here and in child processes. Call before importing
    them."""
    for name in SWITCHES:
        os.environ[name] = "1"


class LocalFiles:
    """Loads quietly, and turns "not in the local cache" of the Hugging Face libraries into one line that says what to do."""

    def __init__(self, what: str, source: str) -> None:
        self.what, self.source = what, source

    def __enter__(self) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise ValueError(missing(self.what, self.source)) from error


def missing(what: str, source: str, options: str = "") -> str:
    """What to do about something that is not on this machine."""
    if Path(source).is_dir():
        return f"{source} does not hold {what}: it needs a config and safetensors weights as save_pretrained writes them"
    return (
        f"{what} {source!r} is not on this machine; add --download (DOWNLOAD=1 with make), or run "
        f"`hf download {source}{options}` where there is a network and copy the Hugging Face cache, or put a folder's path into "
        "the experiment"
    )


def weights_hash(source: str, name: str, digits: int = 12) -> str:
    """Hash of a network's weights: `source` is a file, or a folder or hub name with a file called `name`; empty when missing."""
    path = Path(source)
    if path.is_file() or path.is_dir():
        return file_hash(path if path.is_file() else path / name, digits)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, name)
    except HFValidationError:
        return ""
    return file_hash(Path(found), digits) if isinstance(found, str) else ""
