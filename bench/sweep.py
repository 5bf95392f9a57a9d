"""Run what a plan still misses: trunks in parallel worker processes, then table, figures and report.

One job is one trunk: its branches train in ascending budget, each is evaluated as soon as it is trained. Every step of a job
looks at the disk first, so that the same command resumes; a job that fails marks its runs as failed and the others go on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from bench.data.cache import fill_cache, format_bytes
from bench.instrument import Instrument, open_instrument
from bench.job import REPORT_SECONDS, Job, latent_folder, record, run_job, save_record
from bench.plan import Plan
from bench.progress import Display
from bench.registry import nearest
from bench.report import write_report
from bench.results import Results, build_table, save_frame
from bench.stored import stored_jobs


def run_sweep(plan: Plan, results: Results, display: Display) -> int:
    """Do everything that the plan misses; returns the number of failed runs."""
    instrument = open_instrument(plan.experiment.data)
    jobs = missing_jobs(plan, results)
    if jobs:
        instrument.check(plan.experiment.recipe.num_training_images)
    results.claim(plan.identity())
    save_frame(plan.frame, results.plan)
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


def missing_jobs(plan: Plan, results: Results) -> list[Job]:
    """One job per trunk that has a run to train or evaluate, longest first."""
    jobs = []
    for group in plan.trunks.values():
        missing = tuple(p.run for p in group if record(results, p.run).get("status") != "done")
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


def encode_latents(plan: Plan, results: Results, instrument: Instrument, display: Display) -> None:
    """Fill the latent cache of every tokenizer that the plan uses."""
    num = plan.experiment.recipe.num_training_images
    for tokenizer in sorted({m.tokenizer for m in plan.experiment.methods}):
        folder = latent_folder(results, instrument, tokenizer, num)
        if (folder / "index.json").exists():
            continue
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
    """Run jobs in worker processes and show their progress; a worker that dies fails its job only."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(plan.machine.num_threads)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, display.training(training_flops(jobs)) as tracker:
        reports = manager.Queue()
        pending = list(jobs)
        while pending:
            with ProcessPoolExecutor(min(plan.machine.num_workers, len(pending)), mp_context=context) as pool:
                futures: dict[Future[None], Job] = {pool.submit(run_job, job, reports): job for job in pending}
                pending = []
                waiting = set(futures)
                while waiting:
                    finished, waiting = wait(waiting, timeout=REPORT_SECONDS)
                    drain(reports, tracker)
                    for future in finished:
                        error = future.exception()
                        if isinstance(error, BrokenProcessPool):
                            pending = retry_or_fail(futures, waiting | finished, error)
                            waiting = set()
                            break
                        if error is not None:
                            raise error


def retry_or_fail(futures: dict[Future[None], Job], broken: set[Future[None]], error: Exception) -> list[Job]:
    """After a worker died: jobs that had begun are failed, the others are queued again."""
    again = []
    for future in broken:
        job = futures[future]
        results = Results(job.root)
        begun = [r for r in job.runs if record(results, r).get("status") in ("training", "evaluating")]
        if begun:
            save_record(results, begun[0], status="failed", error=f"worker process died (killed or out of memory): {error}")
        else:
            again.append(job)
    return again


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
        reports: queue.Queue[dict[str, Any]] = queue.Queue()
        with display.training(training_flops([replace(job, runs=(run,))])) as tracker:
            run_job(replace(job, runs=(run,)), reports)
            drain(reports, tracker)
        failed += record(results, run).get("status") != "done"
    return 1 if failed else 0


def training_flops(jobs: list[Job]) -> int:
    """FLOPs that the jobs will run: every trunk to its last branch point and every cooldown."""
    total = 0.0
    for job in jobs:
        cooldown = job.runs[0].recipe.cooldown
        total += (1 - cooldown) * job.runs[-1].flops_budget + sum(cooldown * run.flops_budget for run in job.runs)
    return round(total)


def drain(reports: Any, tracker: Callable[[dict[str, Any]], None]) -> None:
    """Pass on what the workers have reported."""
    while True:
        try:
            tracker(reports.get_nowait())
        except queue.Empty:
            return


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
