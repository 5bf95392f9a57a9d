"""What one worker process does: train and evaluate the missing runs of a trunk, looking at the disk before every step."""

from __future__ import annotations

import json
import subprocess
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import checkpoints
from bench.config import Evaluation, ImageData, Method, Run
from bench.data.cache import TrainingData
from bench.instrument import Instrument, open_instrument
from bench.locks import owned
from bench.machine import Machine
from bench.results import METRICS, Results, read_json, read_lines, write_lines, write_text

REPORT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker does: all missing runs of one trunk."""

    root: Path
    data: str | ImageData
    runs: tuple[Run, ...]
    method: Method
    evaluation: Evaluation
    machine: Machine


def latent_folder(results: Results, instrument: Instrument, tokenizer: str, num_images: int) -> Path:
    """The cache of a tokenizer's encoded training images."""
    key = f"{instrument.fingerprint}-{tokenizer}-{instrument.tokenizer_hash(tokenizer)}-{num_images}"
    return instrument.cache(results) / f"latents-{key}"


def save_record(results: Results, run: Run, **changes: Any) -> None:
    """Update the run's run.json, written whole."""
    folder = results.run(run.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    content = {**results.record(run.run_id), "run": asdict(run), **changes}
    write_text(folder / "run.json", json.dumps(content, indent=1))


STOPPED: set[int] = set()
"""Signals that asked this worker to stop: it begins no further job."""


def run_job(job: Job, reports: Any, *, wait: bool = True) -> str:
    """Train and evaluate the missing runs of a trunk in this process.

    Returns:
        "done", "failed", "interrupted", or "busy" when another process works on the trunk and `wait` is off.
    """
    if STOPPED:
        return "interrupted"
    results = Results(job.root)
    with owned(results.trunk(job.runs[0].trunk_id).with_suffix(".lock"), wait=wait) as mine:
        return _run_owned(job, results, reports) if mine else "busy"


def _run_owned(job: Job, results: Results, reports: Any) -> str:
    import torch

    from bench.train import InterruptedTrainingError

    torch.set_num_threads(job.machine.num_threads)
    instrument = open_instrument(job.data)
    for index, run in enumerate(job.runs):
        say = Reporter(run, reports)
        status = results.record(run.run_id).get("status")
        if status == "done":  # by another sweep on this folder
            say.stage("done")
            continue
        try:
            if status not in ("trained", "evaluating"):
                train_run(job, run, results, instrument, say)
            save_record(results, run, status="evaluating")
            say.stage("evaluating")
            evaluator_of(job, instrument, results).evaluate(run, job.method, say.stage)
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


_EVALUATORS: dict[tuple[Path, str], Any] = {}


def evaluator_of(job: Job, instrument: Instrument, results: Results) -> Any:
    """The worker's evaluator; its reference images are rendered once per process."""
    from bench.evaluate.run import Evaluator

    key = (job.root, instrument.protocol(job.evaluation))
    if key not in _EVALUATORS:
        _EVALUATORS[key] = Evaluator(instrument, job.evaluation, results)
    return _EVALUATORS[key]


class Reporter:
    """Sends a run's progress to the launcher."""

    def __init__(self, run: Run, reports: Any) -> None:
        self.run, self.reports = run, reports
        self.sent_flops = 0
        self.sent_at = 0.0

    def stage(self, text: str) -> None:
        """Say what the run is doing now."""
        self.reports.put({"run": self.run.run_id, "stage": text, "flops": 0})

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""
        self.reports.put({"run": self.run.run_id, "note": text, "flops": 0})

    def progress(self, spent: int, start: int, loss: float) -> None:
        """Report FLOPs of a segment that began at `start`."""
        self.sent_flops = max(self.sent_flops, start)
        if time.monotonic() - self.sent_at > REPORT_SECONDS:
            self.reports.put({"run": self.run.run_id, "flops": spent - self.sent_flops, "loss": loss})
            self.sent_flops, self.sent_at = spent, time.monotonic()


def train_run(job: Job, run: Run, results: Results, instrument: Instrument, say: Reporter) -> None:
    """Extend the trunk to the run's branch point, then cool down to its budget."""
    from bench import group
    from bench.train import Segment, train_segment

    latents = latent_folder(results, instrument, run.tokenizer, run.recipe.num_training_images)
    trunk, folder = results.trunk(run.trunk_id), results.run(run.run_id)
    trunk.mkdir(parents=True, exist_ok=True)
    save_record(results, run, status="training", error=None)
    say.stage("training")
    branch_at = (1 - run.recipe.cooldown) * run.flops_budget
    branch = trunk / f"{round(branch_at)}.ckpt"
    if branch.exists() and not checkpoints.is_whole(branch):
        say.note(f"checkpoint {branch} is damaged; training to it again")
        checkpoints.remove(branch)
    trunk_metrics = trunk / "metrics.jsonl"

    def segment(start: Path | None, start_flops: int, **arguments: Any) -> Any:
        say.sent_flops = start_flops
        part = group.current().share(
            Segment(
                run=run,
                latents=latents,
                space=instrument.space(run.tokenizer),
                conditions=instrument.conditions,
                start=start,
                micro_batch=job.machine.micro_batch,
                **arguments,
            )
        )
        return train_segment(part, lambda p: say.progress(p.flops_spent, start_flops, p.loss), say.note)

    seconds = trunk / "seconds.json"
    spent: dict[str, float] = read_json(seconds) if seconds.exists() else {}
    if not branch.exists():
        start = checkpoints.newest_whole(trunk, say.note, below=branch_at)
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
    if not checkpoints.numbered(running):  # else the lines of the cooldown so far are there too
        kept = [line for line in read_lines(trunk_metrics, METRICS) if line["flops_spent"] <= branch_at * 1.01]
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


def git_sha() -> str:
    """Commit of the code, with "+" when the working tree differs; empty outside a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    sha = git("rev-parse", "--short=12", "HEAD")
    return sha + ("+" if sha and git("status", "--porcelain", "--untracked-files=no") else "")
