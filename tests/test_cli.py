"""Bad input: one line that says what is wrong and what to do, exit status 2, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import MINIATURE, bench, bench_process, variant

from bench.registry import BUILT_INS

ROOT = Path(__file__).parent.parent
ONE_METHOD = ("--experiment", str(MINIATURE), "--paradigms", "next-token")
"""What is planned soonest."""


BROKEN = {
    "unknown": "replace(METHODS['diffusion'], paradigm='diffusio')",
    "options": "replace(METHODS['diffusion'], options={'colour': 1})",
    "tokenizer": "replace(METHODS['diffusion'], tokenizer='autoencoder-fsq')",
    "tokenizers": "replace(METHODS['diffusion'], tokenizer='autoencoder-k')",
    "head": "replace(METHODS['mar'], options={'head': 'cross-entropy'})",
    "causal": "replace(METHODS['next-token'], settings=grid(steps=(4,)))",
    "temperature": "replace(METHODS['diffusion'], settings=grid(steps=(4,), temperature=(0.0,)))",
}
"""Files with one method that cannot be, by name."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "abc"], "BUDGET must be a number"),
        (["--budget", "-1"], "BUDGET must be a number"),
        (["--budget", "0"], "BUDGET must be a number"),
        (["--budget", "inf"], "BUDGET must be a number"),
        ([*ONE_METHOD, "--budget", "1e6"], "BUDGET is too small"),
        (["--paradigms", "difusion"], "did you mean 'diffusion'"),
        (["--experiment", "shapez"], "did you mean 'shapes"),
        (["--experiment", "@broken"], "raises ZeroDivisionError"),
        (["--experiment", "@empty"], "no variable EXPERIMENT"),
        (["--experiment", "@unknown"], "unknown paradigm 'diffusio'; did you mean 'diffusion'"),
        (["--experiment", "@options"], "refuses its options"),
        (["--experiment", "@tokenizer"], "reads latents, not codes"),
        (["--experiment", "@tokenizers"], "unknown tokenizer 'autoencoder-k'; did you mean 'autoencoder-kl"),
        (["--experiment", "@head"], "head 'cross-entropy' reads codes, not latents; for latents use diffusion"),
        (["--experiment", "@causal"], "method 'next-token': causal attention predicts one token per step"),
        (["--experiment", "@temperature"], "method 'diffusion': temperature must be positive, not 0"),
        (["--experiment", "@null"], "condition_dropout=0 trains no null condition"),
    ],
    ids=lambda v: " ".join(v[-2:]) if isinstance(v, list) else "",
)
@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_bad_input(command: str, arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("\n")
    for name, method in BROKEN.items():
        variant(tmp_path / f"{name}.py", f"EXPERIMENT = replace(EXPERIMENT, methods=({method},))")
    variant(tmp_path / "null.py", "EXPERIMENT = replace(EXPERIMENT, recipe=replace(EXPERIMENT.recipe, condition_dropout=0.0))")
    arguments = [str(tmp_path / (a[1:] + ".py")) if a.startswith("@") else a for a in arguments]
    if "--experiment" not in arguments:
        arguments = ["--experiment", str(MINIATURE), *arguments]
    root = tmp_path / "results"
    done = bench(command, "--results", root, *arguments)
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not root.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = bench("plan", *ONE_METHOD, "--results", tmp_path / "results")
    assert done.status == 2
    assert "cannot write" in done.err


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench("plan", *ONE_METHOD, "--results", tmp_path / "file" / "results")
    assert done.status == 2
    assert "cannot write" in done.err


@pytest.mark.parametrize("command", ["table", "report", "status", "evaluate"])
def test_an_empty_results_folder(command: str, tmp_path: Path) -> None:
    done = bench(command, tmp_path)
    assert done.status == 2
    assert "paradigm-bench plan" in done.err or "make sweep" in done.err
    assert not list(tmp_path.iterdir())


def test_an_unknown_run(tmp_path: Path) -> None:
    assert bench("plan", *ONE_METHOD, "--results", tmp_path / "r").status == 0
    known = bench("status", tmp_path / "r").out.split()[-1]
    done = bench("run", tmp_path / "r", known[:-1])
    assert done.status == 2
    assert f"did you mean {known!r}?" in done.err


def test_years_are_refused(tmp_path: Path) -> None:
    done = bench("sweep", *ONE_METHOD, "--budget", "1e20", "--results", tmp_path / "r")
    assert done.status == 2
    assert "years of training" in done.err
    assert "the largest budget that fits is about BUDGET=" in done.err
    assert not (tmp_path / "r").exists()


def test_plan_of_1e20_prints_hours(tmp_path: Path) -> None:
    done = bench("plan", *ONE_METHOD, "--budget", "1e20", "--results", tmp_path / "r")
    assert done.status == 0
    assert "hours" in done.out
    assert "years of training on this machine" in done.out
    assert (tmp_path / "r" / "plan.csv").exists()


def test_paradigms_are_listed() -> None:
    done = bench("paradigms")
    assert done.status == 0
    assert all(name in done.out for name in BUILT_INS)


def test_doctor() -> None:
    done = bench("doctor")
    assert done.status == 0
    assert "torch: 2." in done.out
    assert "weights shapes32 clip" in done.out


def test_bad_options_get_one_line() -> None:
    for arguments in (["sweep", "--launcher", "carrier-pigeon"], ["swep"], ["sweep", "--max-hours", "many"], []):
        done = bench(*arguments)
        assert done.status == 2
        assert len(done.err.strip().splitlines()) == 1


def test_every_stage_has_help() -> None:
    done = bench_process("--help")
    assert done.status == 0
    stages = "plan sweep run evaluate table plot report status paradigms check sample prepare doctor".split()
    assert all(stage in done.out for stage in stages)


def test_make_reports_an_empty_or_bad_budget() -> None:
    for budget in ("", "abc"):
        done = subprocess.run(
            ["make", "plan", f"BUDGET={budget}", f"PYTHON={sys.executable}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode != 0
        assert "BUDGET must be a number" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [(["swep"], "sweep"), (["sweep", "--budgt", "3"], "--budget"), (["plan", "--experimnt=x"], "--experiment")],
)
def test_mistyped_words_get_the_nearest(arguments: list[str], nearest: str) -> None:
    assert f"did you mean '{nearest}'?" in bench(*arguments).err


def test_machine_readable_output() -> None:
    listed = [json.loads(line) for line in bench("paradigms", "--json").out.splitlines()]
    assert {each["name"] for each in listed} >= set(BUILT_INS)
    found = {each["name"]: each for each in map(json.loads, bench("doctor", "--json").out.splitlines())}
    assert found["torch"]["found"]
    assert found["weights shapes64 clip"]["found"] == ""
    assert "prepare shapes64" in found["weights shapes64 clip"]["advice"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_stages_and_options(shell: str, tmp_path: Path) -> None:
    script = bench("completion", shell).out
    assert "sweep" in script
    assert "--budget" in script
    if shell == "bash":
        (tmp_path / "completion").write_text(script)
        assert subprocess.run(["bash", "-n", str(tmp_path / "completion")], check=False).returncode == 0
