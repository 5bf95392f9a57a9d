"""Worker processes on this machine: each takes one job after another and reports through its own pipe.

A worker that dies takes down its own job and no other. Workers end when their launcher does, however it ends: an idle one sees
its pipe close, a busy one notices that its parent is gone and stops as if asked to. A run on several devices has a process for
each of them: the first does the job, the others take part in its training (bench/train/distributed.py).

Processes are forked from a server that has imported what they need and done nothing else, so that the imports are paid once. It
never touches a GPU: each worker is told its own before it does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection, forkserver, process
from multiprocessing.context import ForkServerContext

from bench.plan.machine import Machine, free_port
from bench.sweep.jobs import TrunkJob
from bench.sweep.reports import PipeReports

PRELOADED = ["bench.sweep.trunk", "bench.evaluate.shapes_judge"]
"""What the server imports: training and evaluation. Nothing in here may initialize CUDA, which does not survive a fork."""
STOP_SECONDS = 60.0
"""How long a worker that was asked to stop may take to write its checkpoint."""
DEATH_SECONDS = 5.0
"""How long the system may take to say how a process died whose pipe has closed."""
CAUSES = {
    signal.SIGKILL: "killed, perhaps out of memory",
    signal.SIGILL: "illegal instruction; `paradigm-bench doctor` says what this processor can do",
}


def start_server() -> ForkServerContext:
    """Begin to import what workers need, in the background; settings of threads and downloads in the environment must stand.

    The server finds modules where this process does: without the current folder in front, which may hold another `bench`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = dict(os.environ)
    os.environ.update(PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path), PYTHONSAFEPATH="1")
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _begin(machine: Machine, number: int, environment: dict[str, str]) -> None:
    """Take over the launcher's environment, this worker's own GPUs, and watch the launcher."""
    os.environ.clear()
    os.environ.update(environment)
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    places = machine.num_workers // machine.workers_per_device
    known = given.split(",") if given else [str(index) for index in range(machine.devices * places)]
    first = number % places * machine.devices
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[first : first + machine.devices])
    threading.Thread(target=_stop_with_launcher, daemon=True).start()


def _stop_with_launcher() -> None:
    """Wait until the launcher's end of a pipe closes, then stop as if asked to."""
    launcher = process.parent_process()
    assert launcher is not None
    launcher.join()
    os.kill(os.getpid(), signal.SIGTERM)


def worker_main(pipe: connection.Connection, machine: Machine, number: int, environment: dict[str, str], address: str) -> None:
    """Do jobs until the launcher has no more."""
    _begin(machine, number, environment)
    from bench.sweep.trunk import TrunkWorker  # imported late: the launcher needs neither Lightning nor judges
    from bench.train.distributed import ProcessGroup

    group = ProcessGroup.join(0, machine.devices, machine.devices, address)
    worker, reports = TrunkWorker(group), PipeReports(pipe)
    try:
        while (request := pipe.recv()) is not None:
            job, wait = request
            reports.put({"result": worker.run_job(job, reports, wait=wait)})
    except (EOFError, KeyboardInterrupt):
        return
    group.leave()


def follower_main(rank: int, machine: Machine, number: int, environment: dict[str, str], address: str) -> None:
    """Train what the worker's first process trains, as another of its devices."""
    _begin(machine, number, environment)
    from bench.train.distributed import ProcessGroup
    from bench.train.loop import follow

    follow(ProcessGroup.join(rank, machine.devices, machine.devices, address))


def describe_exit(code: int | None) -> str:
    """What a process died of, by its exit code: the signal's name where one ended it."""
    if code is None or code >= 0:
        return f"exit status {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"signal {-code}"
    return f"{number.name} ({CAUSES.get(number) or (signal.strsignal(number) or '').lower()})"


class Worker:
    """The processes that share a job, one per device, and what they are doing."""

    def __init__(self, context: ForkServerContext, machine: Machine, number: int) -> None:
        """number: place among the workers, which decides the GPUs."""
        self.connection, theirs = context.Pipe()
        common = (machine, number, dict(os.environ), f"127.0.0.1:{free_port()}")
        self.processes = [context.Process(target=worker_main, args=(theirs, *common), daemon=True)]
        for rank in range(1, machine.devices):
            self.processes.append(context.Process(target=follower_main, args=(rank, *common), daemon=True))
        for each in self.processes:
            each.start()
        theirs.close()
        self.job: TrunkJob | None = None

    def give(self, job: TrunkJob, *, wait: bool) -> None:
        """Begin a job; with `wait` also after another process that works on the same trunk."""
        self.job = job
        with contextlib.suppress(OSError):  # of a worker that has died, which its closed pipe tells
            self.connection.send((job, wait))

    def ask_to_stop(self) -> None:
        """A job in training writes its checkpoint first, and tells the other processes."""
        first = self.processes[0]
        if first.is_alive() and first.pid is not None:
            os.kill(first.pid, signal.SIGTERM)

    def broken_by(self, result: str) -> bool:
        """Whether the processes may no longer agree: one of several failed in the middle of a step."""
        return result == "failed" and len(self.processes) > 1

    def exit_code(self) -> int | None:
        """Exit code of the process that a signal ended (negative), or else of one that failed; None when all are well."""
        connection.wait([each.sentinel for each in self.processes], DEATH_SECONDS)
        codes = [each.exitcode for each in self.processes if each.exitcode]
        return next((code for code in codes if code < 0), codes[0] if codes else None)

    def close(self) -> None:
        """Let an idle worker end, and wait for it."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.processes[0].join(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End all processes now; the server has waited for those that ended, so that their numbers may be others' already."""
        for each in self.processes:
            if each.is_alive():
                each.kill()
