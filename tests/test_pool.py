"""The worker pool with workers that follow a script: retry, death, a busy trunk, a broken group and an interrupt."""

import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planned import make_jobs

from bench.progress import Display
from bench.results.folder import Results
from bench.sweep.jobs import TrunkJob
from bench.sweep.pool import WorkerPool
from bench.sweep.workers import describe_exit

KILLED = "SIGKILL (killed, perhaps out of memory)"
ILLEGAL = "SIGILL (illegal instruction; `paradigm-bench doctor` says what this processor can do)"

Scene = Callable[["FakeWorker"], None]
"""What a worker does with a job."""


def reports(*sent: dict[str, Any]) -> Scene:
    def play(worker: "FakeWorker") -> None:
        for report in sent:
            worker.theirs.send(report)

    return play


def ends(result: str, status: str = "done") -> Scene:
    """Its runs' records say so, as a real worker's do."""

    def play(worker: "FakeWorker") -> None:
        assert worker.job is not None
        for run in worker.job.runs:
            error = "RuntimeError: connection closed" if status == "failed" else None
            Results(worker.job.root).run_folder(run.run_id).save_record(run, status=status, error=error)
        worker.theirs.send({"result": result})

    return play


def dies(code: int) -> Scene:
    def play(worker: "FakeWorker") -> None:
        worker.code = code
        worker.theirs.close()

    return play


class FakeWorker:
    """Follows a script, one scene per job."""

    def __init__(self, stage: "Stage", number: int) -> None:
        self.connection, self.theirs = multiprocessing.Pipe()
        self.job: TrunkJob | None = None
        self.stage, self.number, self.code = stage, number, None
        self.did: list[str] = []

    def give(self, job: TrunkJob, *, wait: bool) -> None:
        self.job = job
        self.stage.given.append((job.runs[0].seed, wait))
        self.stage.scenes[job.runs[0].seed].pop(0)(self)

    def ask_to_stop(self) -> None:
        self.did.append("stop")

    def broken_by(self, result: str) -> bool:
        return result == "failed" and self.stage.several

    def exit_code(self) -> int | None:
        return self.code

    def close(self) -> None:
        self.did.append("close")

    def kill(self) -> None:
        self.did.append("kill")


class Stage(Display):
    """The scenes of each job by its seed, and what was said and done."""

    def __init__(self, *scenes: list[Scene], several: bool = False) -> None:
        super().__init__(quiet=True)
        self.scenes, self.several = dict(enumerate(scenes)), several
        self.given: list[tuple[int, bool]] = []
        self.said: list[str] = []
        self.workers: list[FakeWorker] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def make(self, number: int) -> FakeWorker:
        self.workers.append(FakeWorker(self, number))
        return self.workers[-1]

    def run(self, root: Path, num_workers: int) -> list[TrunkJob]:
        jobs = make_jobs(root, len(self.scenes))
        WorkerPool(self.make, num_workers, self).run(jobs)
        return jobs


def states(jobs: list[TrunkJob]) -> list[list[str]]:
    return [[Results(job.root).run_folder(run.run_id).record.status for run in job.runs] for job in jobs]


def test_every_job_is_done_once_by_whoever_is_free(tmp_path: Path) -> None:
    stage = Stage([ends("done")], [ends("done")], [ends("done")])
    jobs = stage.run(tmp_path, 2)
    assert stage.given == [(0, False), (1, False), (2, False)]
    assert states(jobs) == [["done"] * 2] * 3
    assert [worker.did for worker in stage.workers] == [["close"]] * 2


def test_a_death_costs_its_own_job_a_retry(tmp_path: Path) -> None:
    stage = Stage([dies(-signal.SIGKILL), ends("done")], [ends("done")])
    jobs = stage.run(tmp_path, 2)
    assert sorted(stage.given) == [(0, False), (0, False), (1, False)]
    assert states(jobs) == [["done"] * 2] * 2
    assert f"{jobs[0].runs[0].run_id}: its process died of {KILLED}; trying again" in stage.said
    assert [(worker.number, worker.did) for worker in stage.workers] == [(0, ["kill"]), (1, ["close"]), (0, ["close"])]


def test_a_second_death_fails_what_is_left_of_the_job_and_no_other(tmp_path: Path) -> None:
    def one_run_then_death(worker: FakeWorker) -> None:
        assert worker.job is not None
        run = worker.job.runs[0]
        Results(worker.job.root).run_folder(run.run_id).save_record(run, status="done")
        dies(-signal.SIGILL)(worker)

    stage = Stage([dies(-signal.SIGSEGV), one_run_then_death], [ends("done")])
    jobs = stage.run(tmp_path, 1)
    assert states(jobs) == [["done", "failed"], ["done", "done"]]
    error = f"its process died 2 times, the last time of {ILLEGAL}"
    assert Results(tmp_path).run_folder(jobs[0].runs[1].run_id).record.error == error
    assert f"{jobs[0].runs[1].run_id}: failed, {error}" in stage.said


def test_a_death_after_the_last_run_repeats_nothing(tmp_path: Path) -> None:
    def all_then_death(worker: FakeWorker) -> None:
        ends("done")(worker)
        worker.connection.recv()  # the result is lost
        dies(-signal.SIGKILL)(worker)

    stage = Stage([all_then_death])
    assert states(stage.run(tmp_path, 1)) == [["done", "done"]]
    assert stage.given == [(0, False)]
    assert not [text for text in stage.said if "died" in text]


def test_trunks_of_another_sweep_come_last_and_are_waited_for(tmp_path: Path) -> None:
    stage = Stage([reports({"result": "busy"}), ends("done")], [ends("done")], [ends("done")])
    assert states(stage.run(tmp_path, 1)) == [["done"] * 2] * 3
    assert stage.given == [(0, False), (1, False), (2, False), (0, True)]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (-signal.SIGKILL, f"one of its processes died of {KILLED}: RuntimeError: connection closed"),
        (1, "RuntimeError: connection closed"),
        (None, "RuntimeError: connection closed"),
    ],
)
def test_processes_that_disagree_are_replaced_and_the_cause_is_named(tmp_path: Path, code: int | None, error: str) -> None:
    def fails(worker: FakeWorker) -> None:
        worker.code = code
        ends("failed", "failed")(worker)

    stage = Stage([fails], [ends("done")], several=True)
    jobs = stage.run(tmp_path, 1)
    assert states(jobs) == [["failed"] * 2, ["done"] * 2]
    assert Results(tmp_path).run_folder(jobs[0].runs[0].run_id).record.error == error
    assert [worker.did for worker in stage.workers] == [["kill"], ["close"]]


def test_a_failure_of_one_process_keeps_its_worker(tmp_path: Path) -> None:
    stage = Stage([ends("failed", "failed")], [ends("done")])
    assert states(stage.run(tmp_path, 1)) == [["failed"] * 2, ["done"] * 2]
    assert len(stage.workers) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_every_worker_to_stop_and_waits_for_them(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stage = Stage([lambda _: None], [lambda _: signal.raise_signal(number)], [ends("done")])
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            stage.run(tmp_path, 2)
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert [worker.did for worker in stage.workers] == [["stop", "close"]] * 2
    assert stage.given == [(0, False), (1, False)]
    assert stage.said[-1] == "stopping: runs in training write a checkpoint"
    assert signal.getsignal(signal.SIGTERM) == before


def test_progress_reaches_the_display(tmp_path: Path) -> None:
    run_id = make_jobs(tmp_path, 1)[0].runs[0].run_id

    def speaks(worker: FakeWorker) -> None:
        reports({"run": run_id, "note": "mended", "flops": 0}, {"run": run_id, "stage": "done", "flops": 0})(worker)
        ends("done")(worker)

    stage = Stage([speaks])
    stage.run(tmp_path, 1)
    assert f"{run_id}: mended" in stage.said
    assert any(text.endswith(f"{run_id}: done") for text in stage.said)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, KILLED),
        (-4, ILLEGAL),
        (-11, "SIGSEGV (segmentation fault)"),
        (-15, "SIGTERM (terminated)"),
        (-100, "signal 100"),
        (1, "exit status 1"),
        (None, "exit status None"),
    ],
)
def test_exit_codes_are_told_by_their_signals_name(code: int | None, text: str) -> None:
    assert describe_exit(code) == text


PRELOAD = """
import importlib, os, threading, torch
touched = []
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, lambda *arguments, name=name: touched.append(name))
from bench.sweep.workers import PRELOADED
for module in PRELOADED:
    importlib.import_module(module)
assert not touched, touched
assert threading.active_count() == 1, threading.enumerate()
"""


def test_what_workers_fork_from_touches_no_gpu_and_starts_no_thread() -> None:
    """Neither survives a fork."""
    subprocess.run([sys.executable, "-c", PRELOAD], check=True)
