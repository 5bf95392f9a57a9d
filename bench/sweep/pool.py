"""Workers at work: each gets a job, is heard, and is replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any, Protocol

from bench.plan.machine import Machine
from bench.progress import Display
from bench.results.folder import Results
from bench.sweep.jobs import TrunkJob, training_flops
from bench.sweep.reports import REPORT_SECONDS
from bench.sweep.workers import Worker, describe_exit, start_server

RETRIES = 1
"""How often a job whose process died is tried again; a sweep that is started again tries failed runs anew."""


class PoolWorker(Protocol):
    """What the pool needs of a worker; `Worker` says what each part does."""

    connection: connection.Connection
    """Where its reports come from; it closes when the worker dies."""
    job: TrunkJob | None
    """What it is doing."""

    def give(self, job: TrunkJob, *, wait: bool) -> None:
        """Begin a job; with `wait` also after another process that works on the same trunk."""

    def ask_to_stop(self) -> None:
        """End soon; a run in training writes its checkpoint first."""

    def broken_by(self, result: str) -> bool:
        """Whether its processes may no longer agree after a job that ended so."""
        ...

    def exit_code(self) -> int | None:
        """How its process ended, a signal as a negative number; None while it lives."""

    def close(self) -> None:
        """Let an idle worker end, and wait for it."""

    def kill(self) -> None:
        """End it now."""


class WorkerPool:
    """Runs jobs on workers; one that dies costs its own job a retry and is replaced."""

    def __init__(self, make_worker: Callable[[int], PoolWorker], num_workers: int, display: Display) -> None:
        """make_worker: starts the worker of a number from 0."""
        self.make_worker, self.display = make_worker, display
        self.workers = [make_worker(number) for number in range(num_workers)]
        self.waiting: deque[TrunkJob] = deque()
        self.busy: deque[TrunkJob] = deque()
        """Trunks that another sweep works on: they come last, and are waited for."""
        self.deaths: Counter[str] = Counter()

    def run(self, jobs: list[TrunkJob]) -> None:
        """Do all jobs, and end the workers however that ends; SIGTERM and Ctrl-C let runs in training write a checkpoint."""
        self.waiting.extend(jobs)
        with _interrupted_by_sigterm():
            try:
                with self.display.training(training_flops(jobs)) as tracker:
                    while self.waiting or self.busy or any(worker.job for worker in self.workers):
                        self._give_jobs()
                        self._hear(tracker)
            except KeyboardInterrupt:
                self.display.say("stopping: runs in training write a checkpoint")
                for worker in self.workers:
                    worker.ask_to_stop()
                raise
            finally:
                for worker in self.workers:
                    worker.close()

    def _give_jobs(self) -> None:
        for worker in self.workers:
            if worker.job is None and (self.waiting or self.busy):
                wait = not self.waiting
                worker.give(self.busy.popleft() if wait else self.waiting.popleft(), wait=wait)

    def _hear(self, tracker: Callable[[dict[str, Any]], None]) -> None:
        """Take one report of each worker that has something to say, within REPORT_SECONDS."""
        heard = connection.wait([worker.connection for worker in self.workers if worker.job], REPORT_SECONDS)
        for number, worker in enumerate(self.workers):
            if worker.connection not in heard:
                continue
            assert worker.job is not None
            try:
                report = worker.connection.recv()
            except (EOFError, OSError):
                self._after_death(worker.job, describe_exit(worker.exit_code()))
                self._replace(number)
                continue
            if "result" not in report:
                tracker(report)
                continue
            self._after_result(number, report["result"])

    def _after_result(self, number: int, result: str) -> None:
        worker = self.workers[number]
        assert worker.job is not None
        if result == "busy":
            self.busy.append(worker.job)
        if worker.broken_by(result):
            self._explain_failure(worker.job, worker.exit_code())
            self._replace(number)
        worker.job = None

    def _replace(self, number: int) -> None:
        self.workers[number].kill()
        self.workers[number] = self.make_worker(number)

    def _after_death(self, job: TrunkJob, death: str) -> None:
        """Its job again, or its runs marked as failed when that has happened before."""
        results = Results(job.root)
        left = [run for run in job.runs if results.run_folder(run.run_id).record.status not in ("done", "failed")]
        self.deaths[job.trunk_id] += 1
        if not left:
            return
        if self.deaths[job.trunk_id] <= RETRIES:
            self.display.say(f"{left[0].run_id}: its process died of {death}; trying again")
            self.waiting.append(job)
            return
        reason = f"its process died {self.deaths[job.trunk_id]} times, the last time of {death}"
        for run in left:
            results.run_folder(run.run_id).save_record(run, status="failed", error=reason)
        self.display.say(f"{left[0].run_id}: failed, {reason}")

    def _explain_failure(self, job: TrunkJob, code: int | None) -> None:
        """Where a signal ended one of a run's processes the others know of a lost connection only: say which signal it was."""
        if code is None or code >= 0:
            return
        results = Results(job.root)
        for run in job.runs:
            folder = results.run_folder(run.run_id)
            if folder.record.status == "failed":
                folder.save_record(run, error=f"one of its processes died of {describe_exit(code)}: {folder.record.error}")


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def prepare_workers(machine: Machine) -> Callable[[int], Worker]:
    """Begin to import what workers need, with threads as the machine has them; returns what starts the worker of a number."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(machine.num_threads)
    context = start_server()
    return lambda number: Worker(context, machine, number)
