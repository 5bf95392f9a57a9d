"""Train and evaluate the missing runs of a trunk, looking at the disk before every step."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from bench.config.experiment import Evaluation
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.data.latents import TrainingData
from bench.data.open import open_data
from bench.files import read_json, read_lines, write_lines, write_text
from bench.plan.machine import git_sha
from bench.results.folder import STEP_KEYS, Results
from bench.results.record import save_record
from bench.sweep.jobs import TrunkJob
from bench.sweep.locks import file_lock
from bench.sweep.reports import RunReporter
from bench.train import checkpoint_files

STOPPED: set[int] = set()
"""Signals that asked this worker to stop: it begins no further job."""


def run_job(job: TrunkJob, reports: Any, *, wait: bool = True) -> str:
    """Train and evaluate the missing runs of a trunk in this process.

    Returns:
        "done", "failed", "interrupted", or "busy" when another process works on the trunk and `wait` is off.
    """
    if STOPPED:
        return "interrupted"
    results = Results(job.root)
    with file_lock(results.trunk(job.runs[0].trunk_id).with_suffix(".lock"), wait=wait) as mine:
        return _run_owned(job, results, reports) if mine else "busy"


def _run_owned(job: TrunkJob, results: Results, reports: Any) -> str:
    import torch

    from bench.train.checkpoint_callback import InterruptedTrainingError

    torch.set_num_threads(job.machine.num_threads)
    dataset = open_data(job.data)
    for index, run in enumerate(job.runs):
        say = RunReporter(run, reports)
        status = results.record(run.run_id).get("status")
        if status == "done":  # by another sweep on this folder
            say.stage("done")
            continue
        try:
            if status not in ("trained", "evaluating"):
                train_run(job, run, results, dataset, say)
            save_record(results, run, status="evaluating")
            say.stage("evaluating")
            evaluator_of(job, dataset, results).evaluate(run, job.method, say.stage)
            save_record(results, run, status="done", error=None)
            say.stage("done")
        except InterruptedTrainingError as error:
            save_record(results, run, status="interrupted", error=None)
            say.stage(f"interrupted: {error}")
            STOPPED.add(error.number)
            return "interrupted"
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            reason = f"{type(error).__name__}: {first}"
            for failed in job.runs[index:]:
                save_record(results, failed, status="failed", error=reason)
            (results.run(run.run_id) / "error.txt").write_text(traceback.format_exc())
            say.stage(f"failed: {reason}")
            return "failed"
    return "done"


_EVALUATORS: dict[tuple[Path, Evaluation], Any] = {}


def evaluator_of(job: TrunkJob, dataset: TokenizedData, results: Results) -> Any:
    """The worker's evaluator; its reference images are rendered once per process."""
    from bench.evaluate.evaluator import Evaluator

    key = (job.root, job.evaluation)
    if key not in _EVALUATORS:
        _EVALUATORS[key] = Evaluator(dataset, job.evaluation, results)
    return _EVALUATORS[key]


def train_run(job: TrunkJob, run: Run, results: Results, dataset: TokenizedData, say: RunReporter) -> None:
    """Extend the trunk to the run's branch point, then cool down to its budget."""
    from bench.train import distributed
    from bench.train.loop import Segment, train_segment

    latents = dataset.latent_folder(results.cache, run.tokenizer, run.recipe.num_training_images)
    trunk, folder = results.trunk(run.trunk_id), results.run(run.run_id)
    trunk.mkdir(parents=True, exist_ok=True)
    save_record(results, run, status="training", error=None)
    say.stage("training")
    branch_at = (1 - run.recipe.cooldown) * run.flops_budget
    branch = trunk / f"{round(branch_at)}.ckpt"
    if branch.exists() and not checkpoint_files.is_whole(branch):
        say.note(f"checkpoint {branch} is damaged; training to it again")
        checkpoint_files.remove(branch)
    trunk_metrics = trunk / "metrics.jsonl"

    def segment(start: Path | None, start_flops: int, **arguments: Any) -> Any:
        say.sent_flops = start_flops
        part = distributed.current().share(
            Segment(
                run=run,
                latents=latents,
                space=dataset.space(run.tokenizer),
                conditions=dataset.conditions,
                start=start,
                micro_batch=job.machine.micro_batch,
                **arguments,
            )
        )
        return train_segment(part, lambda p: say.progress(p.flops_spent, start_flops, p.loss), say.note)

    seconds = trunk / "seconds.json"
    spent: dict[str, float] = read_json(seconds) if seconds.exists() else {}
    if not branch.exists():
        start = checkpoint_files.newest_whole(trunk, say.note, below=branch_at)
        start_flops = int(start.stem) if start else 0
        trained = segment(
            start,
            start_flops,
            budget=float("inf"),
            stop_at=branch_at,
            running=trunk / "running",
            checkpoint=branch,
            metrics=trunk_metrics,
        )
        spent[branch.stem] = trained.seconds + (spent.get(start.stem, 0.0) if start else 0.0)
        write_text(seconds, json.dumps(spent))
    metrics = folder / "metrics.jsonl"
    running = folder / "running"
    if not checkpoint_files.numbered(running):  # else the lines of the cooldown so far are there too
        kept = [line for line in read_lines(trunk_metrics, STEP_KEYS) if line["flops_spent"] <= branch_at * 1.01]
        write_lines(metrics, kept)
    weights = folder / "weights.safetensors"
    budget = float(run.flops_budget)
    done = segment(
        branch,
        round(branch_at),
        budget=budget,
        stop_at=budget,
        running=running,
        weights=weights,
        metrics=metrics,
    )
    images = done.steps * run.recipe.batch_size
    training = {
        "flops_spent": done.flops_spent,
        "flops_spent_causal": done.flops_spent_causal,
        "flops_per_image": round(done.flops_spent / images),
        "flops_per_image_causal": round(done.flops_spent_causal / images),
        "steps": done.steps,
        "images_seen": images,
        "epochs": round(images / len(TrainingData(latents)), 3),
        "loss": done.loss,
        "train_seconds": round(spent.get(branch.stem, 0.0) + done.seconds, 2),
        "device": job.machine.device,
        "num_devices": job.machine.devices * job.machine.nodes,
        "num_threads": job.machine.num_threads,
        "git_sha": git_sha(),
    }
    save_record(results, run, status="trained", training=training)
