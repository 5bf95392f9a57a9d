"""Nothing lost: killed, interrupted and damaged trainings go on to the same bits; sweeps share a folder, no run is done twice."""

import json
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import MINIATURE, Command, sweep_of
from miniature import EXPERIMENT, SAME
from processes import alive, children, workers_of
from safetensors.torch import load_file

from bench.data.latents import fill_cache
from bench.data.open import open_data
from bench.files import read_lines
from bench.plan.cells import first_run
from bench.results.folder import checkpoints
from bench.results.table import load_table
from bench.train import checkpoint_callback, checkpoint_files, lightning_module
from bench.train.checkpoint_callback import InterruptedTrainingError
from bench.train.loop import Segment, Trained, train_segment
from bench.train.metrics_callback import Progress

DATASET = open_data(EXPERIMENT.data)
METHOD = {m.name: m for m in EXPERIMENT.methods}["mar"]  # random shapes, a mask and a head with noise: the most that can go wrong
RUN = first_run(EXPERIMENT, METHOD, EXPERIMENT.sizes[0], 10**9, DATASET)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    fill_cache(folder, 64, DATASET.row_bytes("autoencoder-kl"), DATASET.encoder("autoencoder-kl"), lambda _: None, chunk=64)
    return folder


@pytest.fixture(autouse=True, scope="module")
def frequent() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_callback, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(lightning_module, "LOG_EVERY_STEPS", 5)
        yield


def segment(latents: Path, root: Path, report: Callable[[Progress], None] = lambda _: None) -> tuple[Trained, list[str]]:
    """A cooldown of 68 steps from the seed."""
    root.mkdir(exist_ok=True)
    said: list[str] = []
    part = Segment(
        run=RUN,
        latents=latents,
        space=DATASET.space("autoencoder-kl"),
        conditions=DATASET.conditions,
        budget=1e9,
        stop_at=1e9,
        start=None,
        running=root / "running",
        weights=root / "weights.safetensors",
        metrics=root / "metrics.jsonl",
    )
    return train_segment(part, report, said.append), said


@pytest.fixture(scope="module")
def straight(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("straight")
    segment(latents, root)
    return root


def same_bits(ours: Path, theirs: Path) -> None:
    a, b = load_file(ours / "weights.safetensors"), load_file(theirs / "weights.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    lines = [read_lines(root / "metrics.jsonl") for root in (ours, theirs)]
    for line in lines[0] + lines[1]:
        del line["segment_seconds"]
    assert lines[0] == lines[1]


class KilledError(Exception):
    """Stands for a kill between two steps; the real thing is tested below."""


def dies_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step >= step:
            raise KilledError

    return report


def test_a_killed_training_goes_on_to_the_same_bits(latents: Path, straight: Path, tmp_path: Path) -> None:
    for step in (10, 35, 36, 60):
        with pytest.raises(KilledError):
            segment(latents, tmp_path, dies_at(step))
        assert len(checkpoints(tmp_path / "running")) == 2
    done, said = segment(latents, tmp_path)
    assert done.steps > 65
    assert not said
    assert not (tmp_path / "running").exists()
    same_bits(tmp_path, straight)


@pytest.fixture(scope="module")
def killed(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that died at step 50."""
    root = tmp_path_factory.mktemp("killed")
    with pytest.raises(KilledError):
        segment(latents, root, dies_at(50))
    return root


@pytest.mark.parametrize("damage", ["newest flipped", "newest cut", "no hash", "both flipped", "empty"])
def test_damaged_checkpoints_are_named_and_the_one_before_is_used(
    latents: Path, straight: Path, killed: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    found = [path for _, path in checkpoints(tmp_path / "running")]
    hit = found if damage == "both flipped" else found[-1:]
    for path in hit:
        content = bytearray(path.read_bytes())
        if damage == "no hash":
            checkpoint_files.hash_file(path).unlink()
            continue
        content[len(content) // 2] ^= 1
        path.write_bytes({"newest cut": content[: len(content) // 3], "empty": b""}.get(damage, bytes(content)))
    _, said = segment(latents, tmp_path)
    assert len(said) == len(hit)
    assert all(str(path) in line for path, line in zip(reversed(hit), said, strict=True))
    same_bits(tmp_path, straight)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGINT, signal.SIGUSR2))]
)
def test_signals_stop_within_one_step_with_a_checkpoint(
    latents: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(checkpoint_callback, "CHECKPOINT_SECONDS", 1e9)

    def report(progress: Progress) -> None:
        if progress.step == 40:
            os.kill(os.getpid(), number)

    with pytest.raises(InterruptedTrainingError, match=r"at step 4[01]"):
        segment(latents, tmp_path, report)
    assert len(checkpoints(tmp_path / "running")) == 1
    segment(latents, tmp_path)
    same_bits(tmp_path, straight)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_with_a_payload_is_not_executed(latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, ("executed", "w"))

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "running" / "5.ckpt"
    checkpoint_files.write(path, lambda temporary: temporary.write_bytes(pickle.dumps({"global_step": Payload()})) and None)
    with pytest.raises(pickle.UnpicklingError):
        segment(latents, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    checkpoint_files.write(tmp_path / "1.ckpt", lambda temporary: temporary.write_bytes(b"whole") and None)
    with pytest.raises(OSError, match="No space"):
        checkpoint_files.write(tmp_path / "2.ckpt", full)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.ckpt", "1.ckpt.sha256"]
    assert checkpoint_files.is_whole(tmp_path / "1.ckpt")


# -- whole sweeps


METHODS = ["diffusion", "next-token"]


def start(root: Path, **environment: str) -> Command:
    """A sweep of two of the miniature experiment's methods."""
    return Command(*sweep_of(MINIATURE, root, "--paradigms", ",".join(METHODS)), **environment)


@pytest.fixture(scope="module")
def undisturbed(swept: Path) -> pd.DataFrame:
    """Their rows where nothing went wrong."""
    table = load_table(swept)
    return table[table["method"].isin(METHODS)][SAME].reset_index(drop=True)


def start_in_training(root: Path) -> Command:
    """A sweep that has written its first checkpoint."""
    process = start(root, PARADIGM_BENCH_CHECKPOINT_SECONDS="0.2")
    deadline = time.monotonic() + 120
    while not list(root.glob("*/*/running/*.ckpt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def test_a_killed_launcher_takes_its_workers_along_and_the_sweep_resumes(undisturbed: pd.DataFrame, tmp_path: Path) -> None:
    """SIGKILL of the launcher in training: its workers stop by themselves, and the same command ends the same."""
    root = tmp_path / "results"
    process = start_in_training(root)
    deadline = time.monotonic() + 120
    workers = children(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(worker) for worker in workers)
    again = start(root)
    said = again.wait()
    assert again.poll() == 0, said
    pd.testing.assert_frame_equal(load_table(root)[SAME], undisturbed)


def test_a_killed_worker_costs_its_own_job_a_retry(undisturbed: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "results"
    process = start_in_training(root)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    said = process.wait()
    assert process.poll() == 0, said
    assert said.count("its process died of SIGKILL (killed, perhaps out of memory); trying again") == 1
    pd.testing.assert_frame_equal(load_table(root)[SAME], undisturbed)


@pytest.mark.slow
def test_sweeps_started_together_share_the_work(undisturbed: pd.DataFrame, tmp_path: Path) -> None:
    """Three launchers on one folder at once: each ends well, and no run is trained or evaluated twice."""
    root = tmp_path / "results"
    launchers = [start(root) for _ in range(3)]
    said = [process.wait() for process in launchers]
    assert [process.poll() for process in launchers] == [0] * 3, said
    pd.testing.assert_frame_equal(load_table(root)[SAME], undisturbed)
    for folder in (root / "runs").iterdir():
        steps = [line["step"] for line in read_lines(folder / "metrics.jsonl")]
        assert steps == sorted(set(steps))
        assert len(read_lines(folder / "evals.jsonl")) == (undisturbed["run_id"] == folder.name).sum()
    assert not list(root.rglob("*.partial"))
    assert json.loads((root / "experiment.json").read_text())["name"] == "miniature"
