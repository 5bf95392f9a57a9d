"""Worker processes at work: give, hear, retry the dead."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from multiprocessing import connection

from bench.plan.plan import Plan
from bench.progress import Display
from bench.results.folder import Results
from bench.results.record import save_record
from bench.sweep.jobs import TrunkJob, training_flops
from bench.sweep.reports import REPORT_SECONDS
from bench.sweep.workers import Worker

RETRIES = 1
"""How often a job whose process died is tried again; a sweep that is started again tries failed runs anew."""


def execute(jobs: list[TrunkJob], plan: Plan, display: Display) -> None:
    """Run jobs in worker processes and show their progress; a worker that dies costs its own job a retry."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(plan.machine.num_threads)
    context = multiprocessing.get_context("spawn")
    waiting, busy, deaths = deque(jobs), deque[TrunkJob](), Counter[str]()
    workers = [Worker(context, plan.machine, number) for number in range(min(plan.machine.num_workers, len(jobs)))]

    def replace_worker(number: int) -> None:
        workers[number].kill()
        workers[number] = Worker(context, plan.machine, number)

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with display.training(training_flops(jobs)) as tracker:
            while waiting or busy or any(worker.job for worker in workers):
                for worker in workers:
                    if worker.job is None and (
                        waiting or busy
                    ):  # trunks that another sweep works on come last, and are waited for
                        worker.give(waiting.popleft() if waiting else busy.popleft(), wait=not waiting)
                heard = connection.wait([worker.connection for worker in workers if worker.job], REPORT_SECONDS)
                for number, worker in enumerate(workers):
                    if worker.connection not in heard:
                        continue
                    assert worker.job is not None
                    try:
                        report = worker.connection.recv()
                    except (EOFError, OSError):
                        waiting.extend(after_death(worker.job, deaths, display))
                        replace_worker(number)
                        continue
                    if "result" not in report:
                        tracker(report)
                        continue
                    if report["result"] == "busy":
                        busy.append(worker.job)
                    worker.job = None
                    if worker.broken_by(report["result"]):
                        replace_worker(number)
    except KeyboardInterrupt:
        display.say("stopping: runs in training write a checkpoint")
        for worker in workers:
            worker.ask_to_stop()
        raise
    finally:
        for worker in workers:
            worker.close()
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def after_death(job: TrunkJob, deaths: Counter[str], display: Display) -> list[TrunkJob]:
    """After a worker died: its job again, or nothing and its run marked as failed when that has happened before."""
    results, trunk = Results(job.root), job.runs[0].trunk_id
    left = [run for run in job.runs if results.record(run.run_id).get("status") not in ("done", "failed")]
    deaths[trunk] += 1
    if not left:
        return []
    if deaths[trunk] <= RETRIES:
        display.say(f"{left[0].run_id}: its process died (killed or out of memory); trying again")
        return [job]
    for run in left:
        save_record(results, run, status="failed", error=f"its process died {deaths[trunk]} times (killed or out of memory)")
    display.say(f"{left[0].run_id}: failed, its process died {deaths[trunk]} times")
    return []
