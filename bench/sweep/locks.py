"""A lock that dies with its owner: two sweeps on one folder share the work and never do a run twice.

POSIX record locks (fcntl.lockf) belong to a process and go when it ends, however it ends. Processes of one machine see each
other's always; machines on NFS do where its lock service runs (version 4 has it built in). On a file system without locks the
first attempt raises, and the sweep says so.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a path while the block runs; gives False at once when another process holds it and `wait` is off.

    Raises:
        ValueError: when the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                yield False
                return
            reason = f"{path.parent} is on a file system without locks ({error.strerror}); choose RESULTS elsewhere"
            raise ValueError(reason) from error
        yield True
