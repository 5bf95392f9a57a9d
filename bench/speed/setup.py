"""What a user waits for before and after training: help, a plan, the first steps, an evaluation."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.config.experiment import Evaluation, Experiment
from bench.data.shapes_data import TokenizedShapes
from bench.evaluate.image_stream import ImageStream
from bench.evaluate.shapes_judge import ShapesJudge
from bench.results.folder import Results
from bench.speed.timing import Spread, row, seconds

HELP_CALLS = 5
PLAN_RUNS, EVALUATION_IMAGES = 200, 5000
PATIENCE_SECONDS = 300.0
EXPERIMENT = """
from bench.config.file import load_experiment
from bench.speed.setup import with_runs
EXPERIMENT = with_runs(load_experiment("shapes"), {num})
"""


def with_runs(experiment: Experiment, num: int) -> Experiment:
    """The experiment with so many seeds in each of its cells that it has num runs or a few more."""
    cells = sum(count > 0 for row in experiment.num_seeds for count in row)
    seeds = math.ceil(num / (len(experiment.methods) * cells))
    return replace(experiment, num_seeds=tuple(tuple(seeds if count else 0 for count in row) for row in experiment.num_seeds))


def command(*arguments: str) -> list[str]:
    """The command line as a user starts it."""
    return [sys.executable, "-m", "bench", *arguments]


def measure_commands() -> Iterator[dict[str, Any]]:
    """Rows of the wall seconds of `--help`, of a plan of 200 runs, and from a worker's start to its first logged steps."""

    def run(*arguments: str) -> float:
        return seconds(lambda: subprocess.run(command(*arguments), check=True, capture_output=True))

    calls = Spread.of([run("--help") for _ in range(HELP_CALLS)])
    yield row("set-up", "paradigm-bench --help", "wall time", calls, "s", "<= 0.5")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "many.py").write_text(EXPERIMENT.format(num=PLAN_RUNS))
        spent = run("plan", "--experiment", str(folder / "many.py"), "--results", str(folder / "plan"))
        yield row("set-up", "paradigm-bench plan", f"wall time of {PLAN_RUNS} runs or more", spent, "s", "<= 10")
        yield row("set-up", "a run", "a worker's start to step 20", first_steps(folder / "sweep"), "s", "<= 2")


def first_steps(root: Path) -> float:
    """Seconds from the end of encoding to the first line of metrics, with one worker per core beginning at once."""
    arguments = ["sweep", "--results", str(root), "--quiet", "--max-hours", "1000"]
    process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL, start_new_session=True)
    deadline, written = time.monotonic() + PATIENCE_SECONDS, list[Path]()
    while not written and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
        written = [path for path in root.glob("trunks/*/metrics.jsonl") if path.stat().st_size]
    now = time.time()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return now - max(path.stat().st_mtime for path in root.glob("cache/latents-*/index.json"))


def score_seconds(dataset: TokenizedShapes, num: int) -> float:
    """Wall seconds of scoring so many images (features, FID, KID, precision and recall, CLIP, verifier) against as many, on every
    core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        judge = ShapesJudge(dataset, Evaluation(num_samples=num, num_reference=num), Results(Path(name)))
        images = torch.cat([chunk for chunk, _ in judge.real_images(num)])

        def score() -> None:
            seen = judge.see(ImageStream.of(images))
            judge.fidelity(seen)
            judge.prompt_following(seen)

        spent = seconds(score)
    torch.set_num_threads(threads)
    return spent


def measure_evaluation(dataset: TokenizedShapes) -> Iterator[dict[str, Any]]:
    """One row: scoring 5,000 images, sampling apart."""
    spent = score_seconds(dataset, EVALUATION_IMAGES)
    yield row("set-up", "evaluation", f"score {EVALUATION_IMAGES} images", spent, "s", "<= 60")
