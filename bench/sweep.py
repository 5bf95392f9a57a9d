"""Run what a plan still misses: trunks in parallel worker processes, then table, figures and report.

One job is one trunk: its branches train in ascending budget, each is evaluated as soon as it is trained. Every step of a job
looks at the disk first, so that the same command resumes; a job that fails marks its runs as failed and the others go on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from bench.data.cache import fill_cache, format_bytes
from bench.instrument import Instrument, open_instrument
from bench.job import REPORT_SECONDS, Job, latent_folder, run_job, save_record
from bench.plan import Plan
from bench.progress import Display
from bench.registry import nearest
from bench.report import write_report
from bench.results import Results, build_table, save_frame
from bench.stored import stored_jobs
from bench.workers import Worker

RETRIES = 1
"""How often a job whose process died is tried again; a sweep that is started again tries failed runs anew."""


def run_sweep(plan: Plan, results: Results, display: Display) -> int:
    """Do everything that the plan misses; returns the number of failed runs."""
    jobs, instrument = begin(plan, results)
    if not jobs:
        display.say(f"all {len(plan.runs)} runs are done; nothing to train")
    else:
        encode_latents(plan, results, instrument, display)
        done_before = {p.run.run_id for p in plan.runs} - {r.run_id for job in jobs for r in job.runs}
        display.say(
            f"training {sum(len(j.runs) for j in jobs)} runs on {len(jobs)} trunks ({len(done_before)} runs done before), "
            f"{plan.machine.num_workers} at a time on {plan.machine.device}"
        )
        execute(jobs, plan, display)
    return finish(plan, results, display)


def begin(plan: Plan, results: Results) -> tuple[list[Job], Instrument]:
    """Claim the results folder, write the plan, and say what is missing."""
    instrument = open_instrument(plan.experiment.data)
    jobs = missing_jobs(plan, results)
    if jobs:
        instrument.check(plan.experiment.recipe.num_training_images)
    results.claim(plan.identity())
    save_frame(plan.frame, results.plan)
    return jobs, instrument


def missing_jobs(plan: Plan, results: Results) -> list[Job]:
    """One job per trunk that has a run to train or evaluate, longest first."""
    jobs = []
    for group in plan.trunks.values():
        missing = tuple(p.run for p in group if results.record(p.run.run_id).get("status") != "done")
        if missing:
            jobs.append(
                Job(
                    root=results.root,
                    data=plan.experiment.data,
                    runs=missing,
                    method=group[0].method,
                    evaluation=plan.experiment.evaluation,
                    machine=plan.machine,
                )
            )
    hours = plan.frame.groupby("trunk_id")["hours"].sum()
    return sorted(jobs, key=lambda job: -hours[job.runs[0].trunk_id])


def missing_latents(plan: Plan, results: Results, instrument: Instrument) -> dict[str, Path]:
    """Tokenizers that the plan uses whose latent cache is not complete, and where it lies."""
    num = plan.experiment.recipe.num_training_images
    folders = {
        name: latent_folder(results, instrument, name, num) for name in sorted({m.tokenizer for m in plan.experiment.methods})
    }
    return {name: folder for name, folder in folders.items() if not (folder / "index.json").exists()}


def encode_latents(plan: Plan, results: Results, instrument: Instrument, display: Display) -> None:
    """Fill the latent cache of every tokenizer that the plan uses."""
    num = plan.experiment.recipe.num_training_images
    for tokenizer, folder in missing_latents(plan, results, instrument).items():
        needed = num * instrument.row_bytes(tokenizer)
        with display.stage(f"encoding training images with {tokenizer} into {format_bytes(needed)}", num, "images") as update:
            fill_cache(
                folder,
                num,
                instrument.row_bytes(tokenizer),
                instrument.encoder(tokenizer),
                update,
                chunk=instrument.chunk,
                max_skipped=instrument.max_skipped(num),
                about=instrument.about(),
            )
        for name in json.loads((folder / "index.json").read_text())["skipped"]:
            display.say(f"skipped, cannot be read: {name}")


def execute(jobs: list[Job], plan: Plan, display: Display) -> None:
    """Run jobs in worker processes and show their progress; a worker that dies costs its own job a retry."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(plan.machine.num_threads)
    context = multiprocessing.get_context("spawn")
    waiting, busy, deaths = deque(jobs), deque[Job](), Counter[str]()
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


def after_death(job: Job, deaths: Counter[str], display: Display) -> list[Job]:
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


def run_alone(results: Results, run_ids: list[str], display: Display, *, train: bool) -> int:
    """Train and evaluate, or evaluate again, the named runs (all trained ones when none is named) in this process.

    Raises:
        ValueError: for a run that the plan does not hold, or that is not trained when only evaluation is asked for.
    """
    jobs = {run.run_id: (job, run) for job in stored_jobs(results) for run in job.runs}
    if not run_ids:
        run_ids = [name for name in jobs if (results.run(name) / "weights.safetensors").exists()]
    failed = 0
    for name in run_ids:
        if name not in jobs:
            raise ValueError(f"{results.root} plans no run {name!r}; {nearest(name, list(jobs))}")
        job, run = jobs[name]
        trained = (results.run(name) / "weights.safetensors").exists()
        if not trained and not train:
            raise ValueError(f"run {name} is not trained; use `paradigm-bench run {results.root} {name}`")
        if trained:
            save_record(results, run, status="trained")
        with display.training(training_flops([replace(job, runs=(run,))])) as tracker:
            run_job(replace(job, runs=(run,)), DirectReports(tracker))
        failed += results.record(run.run_id).get("status") != "done"
    return 1 if failed else 0


def training_flops(jobs: list[Job]) -> int:
    """FLOPs that the jobs will run: every trunk to its last branch point and every cooldown."""
    total = 0.0
    for job in jobs:
        cooldown = job.runs[0].recipe.cooldown
        total += (1 - cooldown) * job.runs[-1].flops_budget + sum(cooldown * run.flops_budget for run in job.runs)
    return round(total)


@dataclass(frozen=True)
class DirectReports:
    """Reports of a job in this process."""

    put: Callable[[dict[str, Any]], None]


def finish(plan: Plan, results: Results, display: Display) -> int:
    """Table, figures and report from what is on disk; returns the number of failed runs."""
    table = build_table(results, plan.rows)
    save_frame(table, results.table)
    write_report(results)
    failed = table[table["status"] == "failed"]
    for _, row in failed.iterrows():
        display.say(f"failed: {row['run_id']}: {row['error']}")
    display.say(f"table   {results.table}")
    display.say(f"figures {results.figures}/")
    display.say(f"report  {results.root / 'report.html'}")
    return len(failed)
