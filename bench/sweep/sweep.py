"""Run what a plan still misses: trunks in parallel worker processes, then table, figures and report.

One job is one trunk: its branches train in ascending budget, each is evaluated as soon as it is trained. Every step of a job
looks at the disk first, so that the same command resumes; a job that fails marks its runs as failed and the others go on.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from bench.data.base import TokenizedData
from bench.data.latents import fill_cache
from bench.errors import nearest
from bench.plan.plan import Plan
from bench.progress import Display, format_bytes
from bench.report.page import write_report
from bench.results.folder import Results
from bench.results.record import save_record
from bench.results.table import build_table, save_frame
from bench.sweep.jobs import TrunkJob, missing_jobs, stored_jobs, training_flops
from bench.sweep.pool import execute
from bench.sweep.reports import DirectReports
from bench.sweep.trunk import run_job


def run_sweep(plan: Plan, results: Results, dataset: TokenizedData, display: Display) -> int:
    """Do everything that the plan misses; returns the number of failed runs."""
    jobs = begin(plan, results, dataset)
    if not jobs:
        display.say(f"all {len(plan.runs)} runs are done; nothing to train")
    else:
        encode_latents(plan, results, dataset, display)
        done_before = {p.run.run_id for p in plan.runs} - {r.run_id for job in jobs for r in job.runs}
        display.say(
            f"training {sum(len(j.runs) for j in jobs)} runs on {len(jobs)} trunks ({len(done_before)} runs done before), "
            f"{plan.machine.num_workers} at a time on {plan.machine.device}"
        )
        execute(jobs, plan, display)
    return finish(plan, results, display)


def begin(plan: Plan, results: Results, dataset: TokenizedData) -> list[TrunkJob]:
    """Claim the results folder, write the plan, and say what is missing.

    Raises:
        ValueError: when the folder is another experiment's, or this machine lacks data or networks for what is missing.
    """
    jobs = missing_jobs(plan, results)
    if jobs:
        from bench.evaluate.open import check_judge  # imported late: takes seconds, and a finished sweep judges nothing

        dataset.check(plan.experiment.recipe.num_training_images)
        check_judge(dataset)
    results.claim(plan.identity())
    save_frame(plan.frame, results.plan)
    return jobs


def missing_latents(plan: Plan, results: Results, dataset: TokenizedData) -> dict[str, Path]:
    """Tokenizers that the plan uses whose latent cache is not complete, and where it lies."""
    num = plan.experiment.recipe.num_training_images
    folders = {name: dataset.latent_folder(results.cache, name, num) for name in plan.experiment.tokenizers}
    return {name: folder for name, folder in folders.items() if not (folder / "index.json").exists()}


def encode_latents(plan: Plan, results: Results, dataset: TokenizedData, display: Display) -> None:
    """Fill the latent cache of every tokenizer that the plan uses."""
    num = plan.experiment.recipe.num_training_images
    for tokenizer, folder in missing_latents(plan, results, dataset).items():
        needed = num * dataset.row_bytes(tokenizer)
        with display.stage(f"encoding training images with {tokenizer} into {format_bytes(needed)}", num, "images") as update:
            fill_cache(
                folder,
                num,
                dataset.row_bytes(tokenizer),
                dataset.encoder(tokenizer),
                update,
                chunk=dataset.chunk,
                max_skipped=dataset.max_skipped(num),
                about=dataset.about(),
            )
        for name in json.loads((folder / "index.json").read_text())["skipped"]:
            display.say(f"skipped, cannot be read: {name}")


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
