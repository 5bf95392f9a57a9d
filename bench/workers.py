"""Worker processes on this machine: each takes one job after another and reports through its own pipe.

A worker that dies takes down its own job and no other. Workers end when their launcher does, however it ends: an idle one sees
the pipe close, a busy one notices that its parent is gone and stops as if asked to. A run on several devices has a process for
each of them: the first does the job, the others take part in its training (bench/group.py).
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
from bench.machine import Machine, free_port

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


def _see_devices(machine: Machine, number: int) -> None:
    """Leave a worker its own GPUs, before anything touches one."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = given.split(",") if given else [str(index) for index in range(machine.devices * machine.num_workers)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[number * machine.devices : (number + 1) * machine.devices])


def serve(connection: Connection, parent: int, machine: Machine, number: int, address: str) -> None:
    """Do jobs until the launcher has no more."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    _see_devices(machine, number)
    from bench import group

    group.join(0, machine.devices, machine.devices, address)
    reports = PipeReports(connection)
    try:
        while (request := connection.recv()) is not None:
            job, wait = request
            reports.put({"result": run_job(job, reports, wait=wait)})
    except (EOFError, KeyboardInterrupt):
        return
    group.leave()


def assist(rank: int, parent: int, machine: Machine, number: int, address: str) -> None:
    """Train what the worker's first process trains, as another of its devices."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    _see_devices(machine, number)
    from bench import group
    from bench.train import take_part

    group.join(rank, machine.devices, machine.devices, address)
    group.follow(take_part)


class Worker:
    """The processes that share a job, one per device, and what they are doing."""

    def __init__(self, context: SpawnContext, machine: Machine, number: int) -> None:
        """number: place among the workers, which decides the GPUs."""
        self.connection, theirs = context.Pipe()
        address = f"127.0.0.1:{free_port()}"
        common = (os.getpid(), machine, number, address)
        self.process = context.Process(target=serve, args=(theirs, *common), daemon=True)
        self.others = [context.Process(target=assist, args=(rank, *common), daemon=True) for rank in range(1, machine.devices)]
        for process in (self.process, *self.others):
            process.start()
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job, *, wait: bool) -> None:
        """Begin a job; with `wait` also after another process that works on the same trunk."""
        self.job = job
        self.connection.send((job, wait))

    def ask_to_stop(self) -> None:
        """A job in training writes its checkpoint first, and tells the other processes."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGTERM)

    def broken_by(self, result: str) -> bool:
        """Whether the processes may no longer agree: one of several failed in the middle of a step."""
        return result == "failed" and bool(self.others)

    def close(self) -> None:
        """Let an idle worker end, and wait for it."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End all processes now."""
        for process in (self.process, *self.others):
            process.kill()
