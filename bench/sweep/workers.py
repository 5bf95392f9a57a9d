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

from bench.plan.machine import Machine, free_port
from bench.sweep.jobs import TrunkJob
from bench.sweep.reports import PipeReports
from bench.sweep.trunk import run_job

PARENT_SECONDS = 1.0
"""How often a worker looks whether its launcher still lives."""
STOP_SECONDS = 60.0
"""How long a worker that was asked to stop may take to write its checkpoint."""


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _see_devices(machine: Machine, number: int) -> None:
    """Leave a worker its own GPUs, before anything touches one."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = given.split(",") if given else [str(index) for index in range(machine.devices * machine.num_workers)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[number * machine.devices : (number + 1) * machine.devices])


def worker_main(connection: Connection, parent: int, machine: Machine, number: int, address: str) -> None:
    """Do jobs until the launcher has no more."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    _see_devices(machine, number)
    from bench.train import distributed

    distributed.join(0, machine.devices, machine.devices, address)
    reports = PipeReports(connection)
    try:
        while (request := connection.recv()) is not None:
            job, wait = request
            reports.put({"result": run_job(job, reports, wait=wait)})
    except (EOFError, KeyboardInterrupt):
        return
    distributed.leave()


def follower_main(rank: int, parent: int, machine: Machine, number: int, address: str) -> None:
    """Train what the worker's first process trains, as another of its devices."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    _see_devices(machine, number)
    from bench.train import distributed
    from bench.train.loop import follow_segment

    distributed.join(rank, machine.devices, machine.devices, address)
    distributed.follow(follow_segment)


class Worker:
    """The processes that share a job, one per device, and what they are doing."""

    def __init__(self, context: SpawnContext, machine: Machine, number: int) -> None:
        """number: place among the workers, which decides the GPUs."""
        self.connection, theirs = context.Pipe()
        address = f"127.0.0.1:{free_port()}"
        common = (os.getpid(), machine, number, address)
        self.process = context.Process(target=worker_main, args=(theirs, *common), daemon=True)
        self.others = [
            context.Process(target=follower_main, args=(rank, *common), daemon=True) for rank in range(1, machine.devices)
        ]
        for process in (self.process, *self.others):
            process.start()
        theirs.close()
        self.job: TrunkJob | None = None

    def give(self, job: TrunkJob, *, wait: bool) -> None:
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
