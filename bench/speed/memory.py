"""The most private memory that a call holds, and its seconds (Linux).

Run as a script, this file watches another process; it imports nothing but Python's own modules, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PERIOD_SECONDS = 0.02
"""Between two looks at the other process."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a call took."""

    seconds: float
    megabytes: float
    """Private memory at its peak beyond that before the call."""


def private_megabytes(process: int | str = "self") -> float:
    """Memory of a process that the system cannot take back: pages of mapped files are not in it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def spent(call: Callable[[], object]) -> Spent:
    """Wall seconds and private memory of a call, watched by a process of its own, since copies of arrays hold Python's lock."""
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):  # glibc keeps what earlier calls freed, which would hide what this one takes
        ctypes.CDLL(None).malloc_trim(0)
    before = private_megabytes()
    watcher = subprocess.Popen(
        [sys.executable, __file__, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout is not None
    watcher.stdout.readline()
    try:
        began = time.perf_counter()
        call()
        seconds = time.perf_counter() - began
    finally:
        most, _ = watcher.communicate()
    return Spent(seconds, max(0.0, float(most) - before))


def watch(process: int) -> None:
    """Say that it begins, look until the standard input closes, then print the most private megabytes that the process held."""
    most = private_megabytes(process)
    print("watching", flush=True)
    while not select.select([sys.stdin], [], [], PERIOD_SECONDS)[0]:
        most = max(most, private_megabytes(process))
    print(most)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
