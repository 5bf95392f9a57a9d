"""What this processor can really do, and how memory is kept.

Virtual machines may announce matrix units and then end every product that uses them. Some announce AMX and do not allow it: each
bf16 matrix product of torch then ends its process with "Illegal instruction". Reading the flags is not enough, so a small product
runs in a child process, once per machine and torch; where it dies, the environment variable that keeps oneDNN from those
instructions is set for this process and all that it starts.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.hub import once_per_machine

LIMIT = "ONEDNN_MAX_CPU_ISA"
"""oneDNN's own variable (its documentation, "CPU Dispatcher Control"); read at its first use, so set before torch is loaded."""
LIMITS = ("AVX512_CORE_BF16", "AVX512_CORE", "AVX2")
"""Tried in this order where products die without a limit."""
SUSPICIOUS = frozenset({"amx_bf16", "amx_tile", "avx512_bf16"})
"""Announced units that a hypervisor may not allow; a processor without any needs no trial."""
PROBE = (
    sys.executable,
    "-c",
    "import torch; x = torch.ones(128, 128, dtype=torch.bfloat16); x @ x; torch.nn.functional.linear(x, x).float().sum().item()",
)
PROBE_SECONDS = 120.0


MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt (malloc.h)."""
LARGEST_KEPT = 32 * 2**20
"""Bytes; the most that glibc takes for the first (DEFAULT_MMAP_THRESHOLD_MAX)."""
MOST_KEPT = 2**30


def keep_memory() -> None:
    """Let this process keep the blocks that it frees, where the C library is glibc.

    By default blocks above 128 KiB go back to the system and come again as pages that must be cleared. A step of next-token at
    width 16, batch 32, then has 1,230 page faults and is 3.7 of 27 ms in the kernel; so it has 5 (EPYC, one thread; docs/log.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library
    mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(TRIM_THRESHOLD, MOST_KEPT)


def announced() -> tuple[str, frozenset[str]]:
    """Name and flags of the first processor, from Linux's list; empty elsewhere."""
    known: dict[str, str] = {}
    try:
        with Path("/proc/cpuinfo").open() as file:
            for line in file:
                if not line.strip():
                    break
                key, _, value = line.partition(":")
                known[key.strip()] = value.strip()
    except OSError:
        pass
    return known.get("model name", ""), frozenset(known.get("flags", "").split())


def survives(command: Sequence[str], limit: str = "") -> bool:
    """Whether a child process under a limit ends otherwise than by a signal.

    One that fails in another way, such as torch not being there, says nothing of the processor.
    """
    environment = {**os.environ, **({LIMIT: limit} if limit else {})}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode not in (-signal.SIGILL, -signal.SIGSEGV, -signal.SIGBUS)


def needed_limit(command: Sequence[str] = PROBE) -> str:
    """The first of LIMITS under which the command survives; empty where it needs none, or nothing helps."""
    if survives(command):
        return ""
    return next((limit for limit in LIMITS if survives(command, limit)), "")


def _remembered(name: str, flags: frozenset[str]) -> str:
    """The limit that this machine needs, tried once and kept in the cache."""
    found = importlib.util.find_spec("torch")
    torch_state = f"{found.origin}-{Path(found.origin).stat().st_mtime_ns}" if found and found.origin else ""
    return once_per_machine("processor", (name, sorted(flags), torch_state), needed_limit)


def settle() -> None:
    """Set the limit that this machine needs, here and for all child processes. Call before torch is loaded.

    A limit that the user has set stands. A processor that announces none of SUSPICIOUS is not tried.
    """
    if LIMIT in os.environ:
        return
    name, flags = announced()
    if flags & SUSPICIOUS and (limit := _remembered(name, flags)):
        os.environ[LIMIT] = limit


def describe() -> tuple[str, str]:
    """What `doctor` says: the processor with what was found, and advice where bf16 products still end the process."""
    name, flags = announced()
    units = ", ".join(sorted(flags & SUSPICIOUS)) or "no bf16 units"
    limit = os.environ.get(LIMIT, "")
    if not flags & SUSPICIOUS:
        return f"{name or 'unknown'}, {units}", ""
    if not survives(PROBE):
        return "", f'{name} ends bf16 products with "Illegal instruction" even under {LIMIT}={limit}; train with precision="fp32"'
    return f"{name}, {units}; bf16 products run" + (f" under {LIMIT}={limit}" if limit else ""), ""
