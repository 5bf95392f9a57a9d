"""Worker processes on this machine: each takes one job after another and reports through its own pipe.

A worker that dies takes down its own job and no other. Workers end when their launcher does, however it ends: an idle one sees
the pipe close, a busy one notices that its parent is gone and stops as if asked to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any

from bench.job import Job, run_job

PARENT_SECONDS = 1.0
"""How often a worker looks whether its launcher still lives."""
STOP_SECONDS = 60.0
"""How long a worker that was asked to stop may take to write its checkpoint."""


class PipeReports:
    """A job's reports, sent to the launcher; nobody listens any more when it has died."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def put(self, report: dict[str, Any]) -> None:
        """Send one report."""
        with contextlib.suppress(OSError):
            self.connection.send(report)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def serve(connection: Connection, parent: int) -> None:
    """Do jobs until the launcher has no more."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    reports = PipeReports(connection)
    try:
        while (request := connection.recv()) is not None:
            job, wait = request
            reports.put({"result": run_job(job, reports, wait=wait)})
    except (EOFError, KeyboardInterrupt):
        return


class Worker:
    """A process and what it is doing."""

    def __init__(self, context: SpawnContext) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job, *, wait: bool) -> None:
        """Begin a job; with `wait` also after another process that works on the same trunk."""
        self.job = job
        self.connection.send((job, wait))

    def ask_to_stop(self) -> None:
        """A job in training writes its checkpoint first."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGTERM)

    def close(self) -> None:
        """Let an idle worker end, and wait for it."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(STOP_SECONDS)
        self.process.kill()
