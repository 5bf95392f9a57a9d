"""The command line as a user calls it: in this process, or in one of its own where the process itself is tested."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.__main__ import main

TESTS = Path(__file__).parent
MINIATURE = TESTS / "miniature.py"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str


def bench(*arguments: str | Path) -> Outcome:
    """Run a stage in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
    return Outcome(status, out.getvalue(), err.getvalue())


def sweep_of(experiment: Path, root: Path, *arguments: str) -> list[str]:
    """The arguments of a sweep."""
    return ["sweep", "--experiment", str(experiment), "--results", str(root), *arguments]


def start(*arguments: str | Path, **environment: str) -> "subprocess.Popen[str]":
    """Begin a stage in a process of its own, at the head of its own group."""
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env={**os.environ, **environment}, start_new_session=True)  # type: ignore[call-overload]


def bench_process(*arguments: str | Path, **environment: str) -> Outcome:
    """Run a stage in a process of its own."""
    process = start(*arguments, **environment)
    out, err = process.communicate()
    return Outcome(process.returncode, out, err)


def variant(path: Path, changes: str) -> Path:
    """Write an experiment file: Python that makes EXPERIMENT anew from the miniature one, whose names it knows."""
    known = f"import sys\nfrom dataclasses import replace\nsys.path.insert(0, {str(TESTS)!r})\nfrom miniature import *\n"
    path.write_text(f"{known}METHODS = {{method.paradigm: method for method in EXPERIMENT.methods}}\n{changes}\n")
    return path


ONE_RUNG = "EXPERIMENT = replace(EXPERIMENT, budget=1.2e9, rungs=(1.0,), num_seeds=((1,),))"
"""Changes to the smallest sweep there is: a run per method."""
