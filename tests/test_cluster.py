"""A sweep on a real SLURM with two nodes: an array of trunks, a preemption with requeue, two nodes for one run, one table."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from command_line import MINIATURE, Outcome, bench, bench_process, sweep_of
from installed import lacks
from miniature import SAME
from private_slurm import Slurm, UnavailableError

from bench.files import read_lines
from bench.results.table import load_table
from bench.sweep.slurm import parse_parameters

METHODS = ["diffusion", "next-token"]
PATIENCE_SECONDS = 900.0


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    try:
        with Slurm(tmp_path_factory.mktemp("slurm")) as running:
            yield running
    except UnavailableError as error:
        lacks(str(error))


def ask(slurm: Slurm, *arguments: str | Path) -> Outcome:
    """The command line where SLURM's commands are found."""
    return bench_process(*arguments, **slurm.environment, PARADIGM_BENCH_CHECKPOINT_SECONDS="0.2")


def submit(slurm: Slurm, root: Path, *arguments: str) -> str:
    where = ("--paradigms", ",".join(METHODS), "--launcher", "slurm", "--slurm", "time=60 cpus_per_task=1 partition=low")
    done = ask(slurm, *sweep_of(MINIATURE, root, *where, *arguments))
    assert done.status == 0, done.err
    return done.err


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def logs(root: Path) -> str:
    return "\n".join(path.read_text()[-1500:] for path in sorted((root / "slurm").rglob("*.err")))


@pytest.fixture
def local(swept: Path) -> pd.DataFrame:
    """The same runs, trained by local workers."""
    frame = load_table(swept)
    return frame[frame["method"].isin(METHODS)].reset_index(drop=True)


@pytest.mark.slow
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
    states = [json.loads(line) for line in ask(slurm, "status", root, "--json").out.splitlines()]
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
    assert "4 runs: 4 done" in bench("status", root).err


@pytest.mark.slow
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
def test_wrong_divisions_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.chdir(tmp_path)
    done = bench("sweep", "--experiment", MINIATURE, *arguments)
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
