"""A sweep on a real SLURM with two nodes: an array of trunks, a preemption with requeue, two nodes for one run, one table."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from miniature import SAME
from private_slurm import Slurm, UnavailableError

from bench.files import read_lines
from bench.results.table import load_table
from bench.sweep.slurm import parse_parameters

HERE = Path(__file__).parent
PATIENCE_SECONDS = 240.0


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    try:
        with Slurm(tmp_path_factory.mktemp("slurm")) as running:
            yield running
    except UnavailableError as error:
        pytest.skip(str(error))


def bench(slurm: Slurm, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**slurm.environment, "PARADIGM_BENCH_CHECKPOINT_SECONDS": "0.2"}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def sweep(slurm: Slurm, root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    common = ["sweep", "--experiment", str(HERE / "miniature.py"), "--results", str(root), "--paradigms", "diffusion,next-token"]
    return bench(slurm, *common, *arguments)


def submit(slurm: Slurm, root: Path, *arguments: str) -> str:
    done = sweep(slurm, root, "--launcher", "slurm", "--slurm", "time=60 cpus_per_task=1 partition=low", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def logs(root: Path) -> str:
    return "\n".join(path.read_text()[-1500:] for path in sorted((root / "slurm").rglob("*.err")))


@pytest.fixture(scope="module")
def local(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("local") / "results"
    done = sweep(slurm, root)
    assert done.returncode == 0, done.stderr
    return load_table(root)


def test_a_preempted_sweep_is_requeued_and_ends_as_the_local_one(slurm: Slurm, local: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "results"
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/bash\nsleep $1\n")
    urgent = ["sbatch", "--parsable", "-p", "high", "--nodes=2", "--ntasks-per-node=2", "-o", "/dev/null", str(script)]
    first = slurm.ask(*urgent, "600")  # holds the queue back while it is looked at
    until(lambda: slurm.ask("squeue", "-h", "-j", first, "-o", "%T") == "RUNNING", "not started: " + slurm.ask("squeue"))
    assert "submitted 2 trunks with 4 runs as job" in submit(slurm, root)
    assert "nothing to submit: what is missing is in the queue" in submit(slurm, root)
    jobs = json.loads((root / "slurm" / "jobs.json").read_text())
    assert set(jobs) >= {"encoding", "report"}
    states = [json.loads(line) for line in bench(slurm, "status", str(root), "--json").stdout.splitlines()]
    assert {state["status"] for state in states} == {"queued"}

    slurm.ask("scancel", first)
    until(lambda: list(root.glob("*/*/running/*.ckpt")), "no checkpoint: " + logs(root))
    assert slurm.ask(*urgent, "3")
    requeued = lambda: [j for j in jobs.values() if "Restarts=1" in slurm.ask("scontrol", "show", "job", j)]  # noqa: E731
    until(requeued, "nothing was preempted: " + slurm.ask("squeue"))

    def drained() -> bool:
        listed = [line.split(maxsplit=1) for line in slurm.ask("squeue", "-h", "--array", "-o", "%i %r").splitlines()]
        for job, reason in listed:
            if reason == "BeginTime":  # SLURM holds a requeued job back for two minutes
                slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
        return not listed

    until(drained, "not done: " + slurm.ask("squeue"))
    assert (root / "report.html").exists(), logs(root)
    pd.testing.assert_frame_equal(load_table(root)[SAME], local[SAME])
    for folder in (root / "runs").iterdir():
        steps = [line["step"] for line in read_lines(folder / "metrics.jsonl")]
        assert steps == sorted(set(steps))
    summary = bench(slurm, "status", str(root))
    assert "4 runs: 4 done" in summary.stderr


def test_two_nodes_train_one_run_to_the_same_losses(slurm: Slurm, local: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "results"
    submit(slurm, root, "--nodes", "2")
    until(lambda: not slurm.ask("squeue", "-h"), "not done: " + slurm.ask("squeue"))
    assert (root / "report.html").exists(), logs(root)
    ours = load_table(root)
    assert ours["run_id"].tolist() == local["run_id"].tolist()
    assert ours["status"].eq("done").all()
    assert ours["flops_spent"].tolist() == local["flops_spent"].tolist()
    assert ours["loss"].tolist() == pytest.approx(local["loss"].tolist(), rel=1e-3)
    records = [json.loads(path.read_text()) for path in root.glob("runs/*/run.json")]
    assert {record["training"]["num_devices"] for record in records} == {2}


def test_parameters_are_pairs_with_a_time_limit() -> None:
    parsed = parse_parameters("time=240,partition=gpu gpus_per_node=8")
    assert parsed == {"time": 240, "partition": "gpu", "gpus_per_node": 8}
    for text, said in (
        ("partition=gpu", "needs a time limit"),
        ("time=long", "needs a time limit"),
        ("fast", "name=value pairs"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_parameters(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--launcher", "slurm", "--slurm", "time=10"], "sbatch and srun are not on this machine"),
        (["--launcher", "slurm"], "needs a time limit per job"),
        (["--slurm", "time=10"], "SLURM parameters need LAUNCHER=slurm"),
        (["--nodes", "2"], "NODES=2 needs LAUNCHER=slurm"),
        (["--devices", "999"], "DEVICES=999, but this machine has"),
        (["--devices", "0"], "must be at least 1"),
        (["--micro-batch", "1"], "MICRO_BATCH=1 is too small"),
    ],
)
def test_wrong_divisions_are_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "bench", "sweep", "--experiment", str(HERE / "miniature.py"), *arguments]
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
