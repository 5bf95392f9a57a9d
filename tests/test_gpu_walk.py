"""`make gpu` resumes, keeps its deadline and goes on after a failure; what it divides by is right. The whole walk is slow."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bench.config.size import Size
from bench.flops.meter import FlopMeter
from bench.model import build_meta
from bench.randomness import step_seed
from bench.registry import BUILT_INS
from bench.speed import gpu
from bench.speed.gpu_training import (
    CONDITIONS,
    TINY,
    Subject,
    largest_batch,
    measure_subject,
    peak,
    run_of,
    space_of,
    subjects,
    training_flops,
)
from bench.speed.timing import row
from bench.speed.wheels import lacking

ABOUT = {"device": "some GPU", "code": "012345678901", "git_sha": "0"}


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A10", None),
        ("cpu", None),
    ],
)
def test_a_name_tells_the_published_peak(device: str, expected: float | None) -> None:
    assert peak(device) == expected


def test_the_batch_is_halved_until_it_fits() -> None:
    tried: list[int] = []

    def fits(limit: int, batch: int) -> str:
        tried.append(batch)
        if batch > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return f"{batch} images"

    assert largest_batch(16, lambda batch: fits(3, batch)) == (2, "2 images")
    assert tried == [16, 8, 4, 2]
    with pytest.raises(ValueError, match="not even a step of one image"):
        largest_batch(4, lambda batch: fits(0, batch))


@pytest.mark.parametrize("name", ["diffusion", "mar", "normalizing-flow"])
def test_flops_continued_from_two_depths_are_those_of_the_whole_stack(name: str) -> None:
    run = run_of(Subject(label=name, paradigm=name, size=Size(width=16, depth=8, num_heads=1)), TINY, 2)
    space = space_of(name, TINY)
    meter = FlopMeter(build_meta(run, space, CONDITIONS), CONDITIONS, run.flop_rule)
    counts = meter.expected([step_seed(run.seed, step, "loss") for step in range(3)], 2)
    assert training_flops(run, space, CONDITIONS, 3) == pytest.approx(sum(c.dense for c in counts) / len(counts) / 2, rel=1e-12)


def test_every_paradigm_is_measured_and_a_model_has_its_rows() -> None:
    groups = subjects(TINY)
    assert groups.keys() == {"DiT", "MAR-L", "next-token-L"} | BUILT_INS.keys()
    rows = {each["quantity"]: each for each in measure_subject(groups["DiT"][1], TINY, "NVIDIA H200")}
    assert rows["images"]["goal"] == ">= 625"
    share = rows["share of the published peak"]
    assert share["value"] == pytest.approx(rows["training rate"]["value"] / 989e12)
    assert (share["goal"], share["reached"]) == (">= 0.45", False)
    unknown = list(measure_subject(groups["DiT"][1], TINY, "another device"))
    assert [each["value"] is None for each in unknown] == [False, False, True, False]
    assert {each["goal"] for each in unknown if each["quantity"] == "images"} == {None}


def stage(name: str, calls: list[str], seconds: float = 0.0) -> gpu.Stage:
    def work(left: float) -> Iterator[dict[str, Any]]:
        calls.append(name)
        yield row("part", "subject", name, float(len(calls)), "1")

    return gpu.Stage(name, seconds, work)


def test_what_is_done_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, calls, later = tmp_path / "bench" / "gpu.csv", [], time.monotonic() + 60
    broken = gpu.Stage("broken", 0.0, lambda left: iter([{}[0]]))
    assert gpu.walk([stage("first", calls), broken], path, ABOUT, later) == 1
    assert "broken: failed, KeyError: 0" in capsys.readouterr().err
    assert gpu.walk([stage("first", calls), stage("broken", calls)], path, ABOUT, later) == 0
    assert calls == ["first", "broken"]
    assert "first: done before" in capsys.readouterr().err
    assert gpu.walk([stage("first", calls)], path, {**ABOUT, "code": "9e0000000000"}, later) == 0
    frame = pd.read_csv(path, dtype={"code": str})
    assert list(frame["measure"]) == ["broken", "first"]
    assert list(frame["code"]) == ["012345678901", "9e0000000000"]
    assert list(frame["value"]) == [2, 3]


def test_what_no_longer_fits_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    found = [stage("long", calls, 90.0), stage("short", calls, 1.0)]
    assert gpu.walk(found, tmp_path / "gpu.csv", ABOUT, time.monotonic() + 60) == 0
    assert calls == ["short"]
    said = capsys.readouterr().err
    assert re.search(r"long: skipped, it needs about 90 s and (59|60) s are left", said)
    assert "1 stages skipped, 0 failed; the same command goes on with them" in said


def test_a_command_is_stopped_at_its_limit() -> None:
    with pytest.raises(RuntimeError, match="ended with status 3"):
        gpu.limited([sys.executable, "-S", "-c", "raise SystemExit(3)"], 60)
    with pytest.raises(RuntimeError, match="stopped after 0 s"):
        gpu.limited([sys.executable, "-S", "-c", "import time; time.sleep(60)"], 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "-1", "--dry"], "MINUTES=-1 must be at least 0"),
        (["--minutes", "soon"], "invalid float value: 'soon'"),
        (["--dry", "--results", str(gpu.ROOT / "results")], "DRY=1 measures nothing that belongs into results"),
        ([], "there is no GPU here; DRY=1 walks the same path"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as leaving:
        gpu.main(arguments)
    said = capsys.readouterr().err
    assert leaving.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_only_missing_packages_are_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no wheels"):
        lacking(tmp_path)
    for name in ("torch-9.0-py3-none-any.whl", "no_such_package-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert [path.name for path in lacking(tmp_path)] == ["no_such_package-1.0-py3-none-any.whl"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU `make gpu` is the test")
def test_the_whole_walk_on_a_cpu(tmp_path: Path) -> None:
    def walk(minutes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.speed.gpu", "--dry", "--minutes", minutes, "--results", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=gpu.ROOT)

    names = [each.name for each in gpu.stages(TINY, "cpu", tmp_path)]
    skipped = walk("0").stderr
    assert all(f"{name}: skipped" in skipped for name in names)
    first = walk("30")
    assert first.returncode == 0, first.stderr
    path = tmp_path / "bench" / "cpu.csv"
    frame = pd.read_csv(path)
    assert list(frame["measure"].drop_duplicates()) == names
    needs_gpu = frame["quantity"].str.contains("CUDA graphs") | (frame["quantity"] == "share of the published peak")
    assert frame.loc[~needs_gpu, "value"].notna().all()
    assert frame.loc[needs_gpu, "value"].isna().all()
    before = path.read_bytes()
    again = walk("30")
    assert again.returncode == 0
    assert all(f"{name}: done before" in again.stderr for name in names)
    assert path.read_bytes() == before
