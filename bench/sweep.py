"""Run what a plan still misses: trunks in parallel worker processes, then table, figures and report.

One job is one trunk: its branches train in ascending budget, each is evaluated as soon as it is trained. Every step of a job
looks at the disk first, so that the same command resumes; a job that fails marks its runs as failed and the others go on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import subprocess
import time
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.config import Evaluation, Method, Run
from bench.data.cache import TrainingData, encode_training_images
from bench.instrument import Instrument
from bench.plan import Machine, Plan, PlannedRun
from bench.progress import Display
from bench.registry import nearest
from bench.results import Results, build_table, save_frame, write_text

REPORT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker does: all missing runs of one trunk."""

    root: Path
    world: str
    runs: tuple[Run, ...]
    method: Method
    evaluation: Evaluation
    machine: Machine


def latent_file(results: Results, instrument: Instrument, tokenizer: str, num_images: int) -> Path:
    """The cache file of a tokenizer's encoded training images."""
    key = f"{instrument.world.fingerprint}-{tokenizer}-{instrument.hash(tokenizer)}-{num_images}"
    return results.cache / f"latents-{key}.safetensors"


def record(results: Results, run: Run) -> dict[str, Any]:
    """The run's run.json, or an empty record."""
    path = results.run(run.run_id) / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save_record(results: Results, run: Run, **changes: Any) -> None:
    """Update the run's run.json, written whole."""
    folder = results.run(run.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    content = {**record(results, run), "run": asdict(run), **changes}
    write_text(folder / "run.json", json.dumps(content, indent=1))


def run_sweep(plan: Plan, results: Results, display: Display) -> int:
    """Do everything that the plan misses; returns the number of failed runs."""
    results.claim(plan.identity())
    save_frame(plan.frame, results.plan)
    instrument = Instrument(plan.experiment.world)
    instrument.weights("clip")
    jobs = missing_jobs(plan, results)
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
                    world=plan.experiment.world,
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
        path = latent_file(results, instrument, tokenizer, num)
        if not path.exists():
            with display.stage(f"encoding training images with {tokenizer}", num, "images") as update:
                encode_training_images(instrument.world, instrument.autoencoder(tokenizer), num, path, update)


def execute(jobs: list[Job], plan: Plan, display: Display) -> None:
    """Run jobs in worker processes and show their progress; a worker that dies fails its job only."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(plan.machine.num_threads)
    context = multiprocessing.get_context("spawn")
    planned = {p.run.run_id: p for p in plan.runs}
    with context.Manager() as manager, display.training(training_flops(jobs, planned)) as tracker:
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


def stored_jobs(results: Results) -> list[Job]:
    """One job per trunk of the experiment that the folder belongs to, from its experiment.json.

    Raises:
        ValueError: when the folder holds no experiment.
    """
    from bench.plan import this_machine

    if not results.experiment.exists():
        raise ValueError(f"{results.root} holds no experiment; make it with `paradigm-bench plan --results {results.root}`")
    stored = json.loads(results.experiment.read_text())
    methods = {name: Method(**content) for name, content in stored["methods"].items()}
    groups: dict[str, list[Run]] = {}
    for text in stored["runs"].values():
        run = Run.from_json(json.dumps(text))
        groups.setdefault(run.trunk_id, []).append(run)
    return [
        Job(
            root=results.root,
            world=stored["world"],
            runs=tuple(sorted(group, key=lambda r: r.flops_budget)),
            method=methods[group[0].method],
            evaluation=Evaluation(**stored["evaluation"]),
            machine=this_machine(),
        )
        for group in groups.values()
    ]


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
        with display.training(training_flops([replace(job, runs=(run,))], {})) as tracker:
            run_job(replace(job, runs=(run,)), reports)
            drain(reports, tracker)
        failed += record(results, run).get("status") != "done"
    return 1 if failed else 0


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, ready to sample."""

    instrument: Instrument
    run: Run
    method: Method
    folder: Path

    def draw(self, words: Any, guidance: float, seed: int) -> Any:
        """uint8 images (n, 3, H, H) for condition tokens (n, M), from the averaged weights."""
        import torch

        from bench.conditioning import Condition
        from bench.train import build_paradigm, load_weights

        space = self.instrument.space(self.run.tokenizer)
        paradigm = build_paradigm(self.run, space, self.instrument.conditions)
        load_weights(paradigm, self.folder / "weights.safetensors", ema=True)
        with torch.inference_mode():
            tokens = paradigm.sample(
                Condition.of(words),
                steps=self.method.sampler_steps,
                guidance=guidance,
                temperature=self.method.temperature,
                generator=torch.Generator().manual_seed(seed),
            )
            return self.instrument.autoencoder(self.run.tokenizer).decode(tokens)


def load_trained(folder: Path) -> TrainedRun:
    """A finished run from its folder results/NAME/runs/RUN_ID.

    Raises:
        ValueError: when there is no trained run.
    """
    if not (folder / "weights.safetensors").exists():
        raise ValueError(f"{folder} holds no trained run (no weights.safetensors); `paradigm-bench status` lists the runs")
    for job in stored_jobs(Results(folder.parent.parent)):
        for run in job.runs:
            if run.run_id == folder.name:
                return TrainedRun(Instrument(job.world), run, job.method, folder)
    raise ValueError(f"{folder.parent.parent} plans no run {folder.name!r}")


def training_flops(jobs: list[Job], planned: dict[str, PlannedRun]) -> int:
    """FLOPs that the jobs will run: every trunk to its last branch point and every cooldown."""
    total = 0.0
    for job in jobs:
        cooldown = job.runs[0].recipe.cooldown
        total += (1 - cooldown) * job.runs[-1].flops_budget + sum(cooldown * run.flops_budget for run in job.runs)
    return round(total)


def drain(reports: Any, tracker: Any) -> None:
    """Pass on what the workers have reported."""
    while True:
        try:
            tracker(reports.get_nowait())
        except queue.Empty:
            return


def run_job(job: Job, reports: Any) -> None:
    """Train and evaluate the missing runs of a trunk in this process."""
    import torch

    torch.set_num_threads(job.machine.num_threads)
    results, instrument = Results(job.root), Instrument(job.world)
    for index, run in enumerate(job.runs):
        say = Reporter(run, reports)
        try:
            if record(results, run).get("status") not in ("trained", "evaluating"):
                train_run(job, run, results, instrument, say)
            save_record(results, run, status="evaluating")
            say.stage("evaluating")
            evaluator_of(job, instrument, results).evaluate(run, job.method, say.stage)
            save_record(results, run, status="done", error=None)
            say.stage("done")
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            reason = f"{type(error).__name__}: {first}"
            for failed in job.runs[index:]:
                save_record(results, failed, status="failed", error=reason)
            (results.run(run.run_id) / "error.txt").write_text(traceback.format_exc())
            say.stage(f"failed: {reason}")
            return


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
        self.reports.put({"run": self.run.run_id, "stage": text, "flops": 0})

    def progress(self, spent: int, start: int, loss: float) -> None:
        """Report FLOPs of a segment that began at `start`."""
        self.sent_flops = max(self.sent_flops, start)
        if time.monotonic() - self.sent_at > REPORT_SECONDS:
            self.reports.put({"run": self.run.run_id, "flops": spent - self.sent_flops, "loss": loss})
            self.sent_flops, self.sent_at = spent, time.monotonic()


def train_run(job: Job, run: Run, results: Results, instrument: Instrument, say: Reporter) -> None:
    """Extend the trunk to the run's branch point, then cool down to its budget."""
    from bench.train import train_segment

    data = TrainingData(latent_file(results, instrument, run.tokenizer, run.recipe.num_training_images))
    space, conditions = instrument.space(run.tokenizer), instrument.conditions
    trunk, folder = results.trunk(run.trunk_id), results.run(run.run_id)
    trunk.mkdir(parents=True, exist_ok=True)
    save_record(results, run, status="training", error=None)
    say.stage("training")
    branch_at = (1 - run.recipe.cooldown) * run.flops_budget
    branch = trunk / f"{round(branch_at)}.ckpt"
    trunk_metrics = trunk / "metrics.jsonl"

    def segment(start: Path | None, start_flops: int, **arguments: Any) -> Any:
        say.sent_flops = start_flops
        report = lambda p: say.progress(p.flops_spent, start_flops, p.loss)  # noqa: E731
        return train_segment(run, data, space, conditions, start=start, report=report, **arguments)

    seconds = trunk / "seconds.json"
    spent: dict[str, float] = json.loads(seconds.read_text()) if seconds.exists() else {}
    if not branch.exists():
        earlier = sorted((p for p in trunk.glob("*.ckpt") if int(p.stem) < branch_at), key=lambda p: int(p.stem))
        start = earlier[-1] if earlier else None
        start_flops = int(start.stem) if start else 0
        trained = segment(
            start, start_flops, budget=float("inf"), stop_at=branch_at, checkpoint=branch, weights=None, metrics=trunk_metrics
        )
        spent[branch.stem] = trained.seconds + (spent.get(start.stem, 0.0) if start else 0.0)
        write_text(seconds, json.dumps(spent))
    metrics = folder / "metrics.jsonl"
    lines = trunk_metrics.read_text().splitlines() if trunk_metrics.exists() else []
    kept = [line for line in lines if json.loads(line)["flops_spent"] <= branch_at * 1.01]
    metrics.write_text("".join(line + "\n" for line in kept))
    weights = folder / "weights.safetensors"
    budget = float(run.flops_budget)
    done = segment(branch, round(branch_at), budget=budget, stop_at=budget, checkpoint=None, weights=weights, metrics=metrics)
    images = done.steps * run.recipe.batch_size
    training = {
        "flops_spent": done.flops_spent,
        "flops_spent_causal": done.flops_spent_causal,
        "flops_per_image": round(done.flops_spent / images),
        "flops_per_image_causal": round(done.flops_spent_causal / images),
        "steps": done.steps,
        "images_seen": images,
        "epochs": round(images / len(data), 3),
        "loss": done.loss,
        "train_seconds": round(spent.get(branch.stem, 0.0) + done.seconds, 2),
        "device": job.machine.device,
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


def finish(plan: Plan, results: Results, display: Display) -> int:
    """Table, figures and report from what is on disk; returns the number of failed runs."""
    from bench.report import write_report

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
