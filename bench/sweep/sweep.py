"""Run what a plan still misses: trunks in parallel worker processes, then table, figures and report.

One job is one trunk: its branches train in ascending budget, each is evaluated as soon as it is trained. Every step of a job
looks at the disk first, so that the same command resumes; a job that fails marks its runs as failed and the others go on.
"""

from __future__ import annotations

import json
from dataclasses import replace

from bench.data.base import TokenizedData
from bench.errors import nearest
from bench.files import write_text
from bench.plan.environment import environment
from bench.plan.plan import Plan
from bench.progress import Display
from bench.report.page import write_report
from bench.results.folder import Results
from bench.results.identity import bind_experiment
from bench.results.table import build_table, save_frame
from bench.sweep.jobs import TrunkJob, missing_jobs, stored_jobs, training_flops
from bench.sweep.latents import encode_latents
from bench.sweep.plugins import check_plugins
from bench.sweep.pool import WorkerPool, prepare_workers
from bench.sweep.reports import DirectReports


def run_sweep(plan: Plan, results: Results, dataset: TokenizedData, display: Display) -> int:
    """Do everything that the plan misses; returns the number of failed runs."""
    jobs = begin(plan, results, dataset, display)
    if not jobs:
        display.say(f"all {len(plan.asked)} runs are done; nothing to train")
    else:
        make_worker = prepare_workers(plan.machine)
        encode_latents(plan, results, dataset, display)
        done_before = {p.run.run_id for p in plan.runs} - {r.run_id for job in jobs for r in job.runs}
        display.say(
            f"training {sum(len(j.runs) for j in jobs)} runs on {len(jobs)} trunks ({len(done_before)} runs done before), "
            f"{plan.machine.num_workers} at a time on {plan.machine.device}"
        )
        WorkerPool(make_worker, min(plan.machine.num_workers, len(jobs)), display).run(jobs)
    return finish(plan, results, display)


def begin(plan: Plan, results: Results, dataset: TokenizedData, display: Display) -> list[TrunkJob]:
    """Make the results folder the plan's, write the plan, and say what is missing.

    Raises:
        ValueError: when a plugin does not conform, the folder is another experiment's, or this machine lacks data or networks for
            what is missing.
    """
    check_plugins(plan, results, display)
    jobs = missing_jobs(plan, results)
    if jobs:
        from bench.evaluate.open import check_judge  # imported late: takes seconds, and a finished sweep judges nothing

        dataset.check(max(plan.cached))
        check_judge(dataset)
    bind_experiment(results, plan.identity)
    save_frame(plan.frame, results.plan)
    if jobs:
        found = environment(plan.machine, {planned.run.paradigm for planned in plan.runs})
        write_text(results.environment, json.dumps(found, indent=1) + "\n")
    return jobs


def run_alone(results: Results, run_ids: list[str], display: Display, *, train: bool) -> int:
    """Train and evaluate, or evaluate again, the named runs (all trained ones when none is named) in this process.

    Raises:
        ValueError: for a run that the plan does not hold, or that is not trained when only evaluation is asked for.
    """
    from bench.sweep.trunk import TrunkWorker  # imported late: a launcher needs neither Lightning nor judges

    jobs = {run.run_id: replace(job, runs=(run,)) for job in stored_jobs(results) for run in job.runs}
    if not run_ids:
        run_ids = [name for name in jobs if results.run_folder(name).weights.exists()]
    worker, failed = TrunkWorker(), 0
    for name in run_ids:
        if name not in jobs:
            raise ValueError(f"{results.root} plans no run {name!r}; {nearest(name, list(jobs))}")
        folder = results.run_folder(name)
        if folder.weights.exists():
            folder.save_record(jobs[name].runs[0], status="trained")
        elif not train:
            raise ValueError(f"run {name} is not trained; use `paradigm-bench run {results.root} {name}`")
        with display.training(training_flops([jobs[name]])) as tracker:
            worker.run_job(jobs[name], DirectReports(tracker))
        failed += folder.record.status != "done"
    return 1 if failed else 0


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
    display.say(f"report  {results.report}")
    return len(failed)
