"""`make gpu`: all that needs a GPU, in one go that a deadline bounds and that the same command continues.

The tests that need one, a sweep, and rows of speed; every stage that is done is written to results/bench/<gpu>.csv at once, and
not repeated for the same code and device.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import torch

from bench.cli.parser import Parser
from bench.errors import first_line
from bench.plan.machine import git_sha, this_machine
from bench.results.table import load_table, save_frame
from bench.speed import gpu_sampling, gpu_training
from bench.speed.gpu_training import FULL, TINY, Scale
from bench.speed.setup import command
from bench.speed.timing import as_text, row

Rows = Iterator[dict[str, Any]]
ROOT = Path(__file__).parent.parent.parent
SWEEP_SECONDS = 480.0
"""Most of one call that the sweep may take; the next goes on with it."""
SWEEP_HOURS = 0.2
STOP_SECONDS = 60.0
TINY_SWEEP = """
from dataclasses import replace
from bench.config.experiment import Evaluation
from bench.config.file import load_experiment
SHAPES = load_experiment("shapes")
(METHOD,) = SHAPES.select(["next-token"]).methods
EXPERIMENT = replace(
    SHAPES,
    name="dry",
    methods=(replace(METHOD, learning_rates=METHOD.learning_rates[:1], settings=METHOD.settings[:1]),),
    sizes=SHAPES.sizes[:1],
    budget=2e9,
    rungs=(1.0,),
    num_seeds=((1,),),
    recipe=replace(SHAPES.recipe, batch_size=8, warmup_steps=5, num_training_images=256),
    evaluation=Evaluation(
        num_samples=96, num_held_out=16, num_validation=80, num_reference=128, latency_calls=1, throughput_batches=(8,)
    ),
)
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the walk."""

    name: str
    """In the rows' column `measure`."""
    seconds: float
    """That an H200 is expected to need; not measured."""
    work: Callable[[float], Rows]
    """Given the seconds that are left, its rows."""


def limited(arguments: list[str], seconds: float) -> None:
    """Run a command for so many seconds at most, then ask it to stop.

    Raises:
        RuntimeError: when it was stopped or failed.
    """
    process = subprocess.Popen(arguments, cwd=ROOT)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise RuntimeError(f"stopped after {seconds:.0f} s; the same command goes on") from None
    if status:
        raise RuntimeError(f"ended with status {status}")


def run_tests(left: float) -> Rows:
    """The tests that need a GPU; without one they are skipped."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "tests.xml"
        tests = ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}", str(ROOT / "tests/test_gpu.py")]
        limited([sys.executable, *tests], left)
        (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    skipped = int(suite.attrib["skipped"])
    yield row("tests", "GPU tests", "passed", int(suite.attrib["tests"]) - skipped, "1")
    yield row("tests", "GPU tests", "skipped", skipped, "1")


def run_sweep(folder: Path, tiny: bool, left: float) -> Rows:
    """The default experiment at its own budget, of which results/ has a reference; or a single small run."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        experiment = "shapes"
        if tiny:
            experiment = str(Path(name) / "dry.py")
            Path(experiment).write_text(TINY_SWEEP)
        options = ["--experiment", experiment, "--results", str(folder.resolve()), "--max-hours", str(SWEEP_HOURS)]
        limited(command("sweep", *options), left if tiny else min(left, SWEEP_SECONDS))
    table = load_table(folder)
    done = table[table["status"] == "done"].drop_duplicates("run_id")
    yield row("sweep", "shapes", "runs done", len(done), "1")
    yield row("sweep", "shapes", "wall time of the last call", time.perf_counter() - start, "s")


def stages(scale: Scale, device: str, folder: Path) -> list[Stage]:
    """Everything, what matters most first.

    Args:
        folder: of the sweep.
    """
    tiny = scale is TINY
    numbers, seconds = ((1, 2), 0.2) if tiny else ((1, 2, 4), gpu_sampling.SECONDS)

    def rows(make: Callable[[], Rows]) -> Callable[[float], Rows]:
        return lambda left: make()

    company = partial(gpu_sampling.measure_company, scale, "TINY" if tiny else "FULL", numbers, seconds)
    models = [
        Stage(f"training {name}", 60.0, rows(partial(gpu_training.measure_group, group, scale, device)))
        for name, group in gpu_training.subjects(scale).items()
    ]
    with_goals = len(gpu_training.PUBLISHED)
    found = [
        Stage("tests", 120.0, run_tests),
        Stage("sweep", 240.0, partial(run_sweep, folder, tiny)),
        *models[:with_goals],
        Stage("decoding", 30.0, rows(partial(gpu_sampling.measure_decoding, scale))),
        Stage("diffusion head", 60.0, rows(partial(gpu_sampling.measure_head, scale))),
        Stage("several runs", 90.0, rows(company)),
        Stage("evaluation", 60.0, rows(partial(gpu_sampling.measure_scoring, 96 if tiny else 5000))),
        *models[with_goals:],
    ]
    return [replace(stage, seconds=0.0) for stage in found] if tiny else found


def code_hash() -> str:
    """First 12 digits of the SHA-256 of the suite's code: a checkout without git has it too, and results do not change it."""
    digest = hashlib.sha256()
    for path in sorted(each for folder in ("bench", "paradigms") for each in (ROOT / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def walk(found: Iterable[Stage], path: Path, about: dict[str, Any], deadline: float) -> int:
    """Do every stage that the table at a path lacks and that should end before the deadline; returns how many failed.

    Args:
        about: columns of every row; `code` and `device` among them decide what is known.
        deadline: by `time.monotonic`.
    """
    frame = pd.read_csv(path, dtype={"code": str, "git_sha": str}) if path.exists() else pd.DataFrame()
    known = set()
    if len(frame):
        known = set(frame.loc[(frame["code"] == about["code"]) & (frame["device"] == about["device"]), "measure"])
    failed = skipped = 0
    for stage in found:
        left = deadline - time.monotonic()
        if stage.name in known:
            say(f"{stage.name}: done before")
        elif left < max(stage.seconds, 1e-9):
            say(f"{stage.name}: skipped, it needs about {stage.seconds:.0f} s and {max(0.0, left):.0f} s are left")
            skipped += 1
        else:
            say(f"{stage.name}: begins, {left:.0f} s are left")
            try:
                rows = list(stage.work(left))
            except Exception as error:  # the others do not depend on it, and a GPU may be lent for minutes only
                say(f"{stage.name}: failed, {type(error).__name__}: {first_line(error)}")
                failed += 1
                continue
            made = pd.DataFrame([{"measure": stage.name, **each, **about} for each in rows])
            frame = pd.concat([frame[frame["measure"] != stage.name], made]) if len(frame) else made
            save_frame(frame, path)
    if skipped or failed:
        say(f"{skipped} stages skipped, {failed} failed; the same command goes on with them")
    if len(frame):
        print(as_text(frame))
        print(f"written to {path}")
    return failed


def say(line: str) -> None:
    """Progress, at once."""
    print(f"make gpu: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Walk; 1 when a stage failed, 2 for bad input."""
    parser = Parser(prog="make gpu", description="Measure what needs a GPU; the same command resumes.")
    parser.add_argument("--minutes", type=float, default=25.0, help="begin nothing that would end later (default: 25)")
    parser.add_argument("--dry", action="store_true", help="the same walk with tiny shapes, on a CPU too")
    parser.add_argument("--results", type=Path, help="folder to write to (default: results; with --dry a new one)")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    if not options.minutes >= 0:
        parser.error(f"MINUTES={options.minutes:g} must be at least 0")
    if not (torch.cuda.is_available() or options.dry):
        parser.error("there is no GPU here; DRY=1 walks the same path on a CPU with tiny shapes")
    if options.dry and options.results and options.results.resolve() == (ROOT / "results").resolve():
        parser.error("DRY=1 measures nothing that belongs into results; name another folder")
    folder = options.results or (Path(tempfile.mkdtemp(prefix="gpu-dry-")) if options.dry else ROOT / "results")
    machine, scale = this_machine(), TINY if options.dry else FULL
    torch.set_num_threads(machine.num_threads)
    about = {"device": machine.device, "torch": torch.__version__, "git_sha": git_sha(), "code": code_hash()}
    name = machine.device.replace(" ", "-").lower()
    found = stages(scale, machine.device, folder / "gpu")
    return 1 if walk(found, folder / "bench" / f"{name}.csv", about, start + 60 * options.minutes) else 0


if __name__ == "__main__":
    sys.exit(main())
