"""Bad input: one line that says what is wrong and what to do, exit status 2, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.registry import BUILT_INS

ROOT = Path(__file__).parent.parent
MINIATURE = str(Path(__file__).parent / "miniature.py")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "abc"], "BUDGET must be a number"),
        (["--budget", "-1"], "BUDGET must be a number"),
        (["--budget", "0"], "BUDGET must be a number"),
        (["--budget", "inf"], "BUDGET must be a number"),
        (["--budget", "1e6"], "BUDGET is too small"),
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
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_bad_input(command: str, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(MINIATURE).read_text()
    learned = '            tokenizer="autoencoder-kl",\n            learning_rates=(2e-3,),\n'
    first = learned + "            settings=grid(steps=(4,), guidance=(1.0, 2.0)),\n"
    assert text.count(first) == 1
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("\n")
    (tmp_path / "unknown.py").write_text(text.replace('paradigm="diffusion"', 'paradigm="diffusio"'))
    (tmp_path / "options.py").write_text(text.replace(first, first + '            options={"colour": 1},\n'))
    (tmp_path / "tokenizer.py").write_text(text.replace(first, first.replace("-kl", "-fsq")))
    (tmp_path / "tokenizers.py").write_text(text.replace(first, first.replace("-kl", "-k")))
    (tmp_path / "head.py").write_text(text.replace("options=MAR_OPTIONS", 'options={"head": "cross-entropy"}'))
    (tmp_path / "causal.py").write_text(text.replace("settings=grid())", "settings=grid(steps=(4,)))"))
    (tmp_path / "temperature.py").write_text(text.replace(first, first.replace("guidance=", "temperature=(0.0,), guidance=")))
    (tmp_path / "null.py").write_text(text.replace("batch_size=4", "batch_size=4, condition_dropout=0.0"))
    arguments = [str(tmp_path / (a[1:] + ".py")) if a.startswith("@") else a for a in arguments]
    if "--experiment" not in arguments:
        arguments = ["--experiment", MINIATURE, *arguments]
    root = tmp_path / "results"
    assert main([command, "--results", str(root), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not root.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main(["plan", "--experiment", MINIATURE, "--results", str(tmp_path / "results")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["plan", "--experiment", MINIATURE, "--results", str(tmp_path / "file" / "results")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["table"], ["report"], ["status"], ["evaluate"]])
def test_an_empty_results_folder(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "paradigm-bench plan" in error or "make sweep" in error
    assert not list(tmp_path.iterdir())


def test_an_unknown_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--experiment", MINIATURE, "--results", str(tmp_path / "r")]) == 0
    assert main(["status", str(tmp_path / "r")]) == 0
    known = capsys.readouterr().out.split()[-1]
    assert main(["run", str(tmp_path / "r"), known[:-1]]) == 2
    assert f"did you mean {known!r}?" in capsys.readouterr().err


def test_years_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--budget", "1e20", "--results", str(tmp_path / "r")]) == 2
    error = capsys.readouterr().err
    assert "years of training" in error
    assert "the largest budget that fits is about BUDGET=" in error
    assert not (tmp_path / "r").exists()


def test_plan_of_1e20_prints_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--budget", "1e20", "--results", str(tmp_path / "r")]) == 0
    out = capsys.readouterr().out
    assert "hours" in out
    assert "years of training on this machine" in out
    assert (tmp_path / "r" / "plan.csv").exists()


def test_paradigms_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paradigms"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in BUILT_INS)


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch: 2." in out
    assert "weights shapes32 clip" in out


def test_bad_options_get_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["sweep", "--launcher", "carrier-pigeon"], ["swep"], ["sweep", "--max-hours", "many"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_every_stage_has_help() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    stages = "plan sweep run evaluate table plot report status paradigms check sample prepare doctor".split()
    assert all(stage in done.stdout for stage in stages)


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
def test_mistyped_words_get_the_nearest(arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"did you mean '{nearest}'?" in capsys.readouterr().err


def test_machine_readable_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paradigms", "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["name"] for each in listed} >= set(BUILT_INS)
    assert main(["doctor", "--json"]) == 0
    found = {each["name"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["torch"]["found"]
    assert found["weights shapes64 clip"]["found"] == ""
    assert "prepare shapes64" in found["weights shapes64 clip"]["advice"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_stages_and_options(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "sweep" in script
    assert "--budget" in script
    if shell == "bash":
        (tmp_path / "completion").write_text(script)
        assert subprocess.run(["bash", "-n", str(tmp_path / "completion")], check=False).returncode == 0
