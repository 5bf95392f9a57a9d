"""The command line as a user calls it: in this process, in a process of its own, or in one forked where imports are paid once."""

import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from bench.__main__ import main
from bench.sweep.workers import PRELOADED

TESTS = Path(__file__).parent
MINIATURE = TESTS / "miniature.py"
IMPORTED = ["bench.cli.stages", "bench.data.open", "bench.plan.plan", "bench.report.page", *PRELOADED]


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


class Command:
    """A stage in a process of its own, at the head of its own group, forked from a server that has imported what stages need."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        descriptor, self._said = tempfile.mkstemp(prefix="said-")
        os.close(descriptor)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        given = {**os.environ, **environment}
        self._process: ForkServerProcess = context.Process(target=_run, args=(list(map(str, arguments)), given, self._said))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit status, once there is one; less than 0: of a signal."""
        return self._process.exitcode

    def wait(self) -> str:
        """What it said on standard error, once it has ended."""
        self._process.join()
        return Path(self._said).read_text()


def _run(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """The stage; what it forks in turn comes from this process."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    util.spawnv_passfds = _fork_server  # type: ignore[attr-defined]
    with open(said, "w") as err, open(os.devnull, "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    sys.exit(main(arguments))


def _fork_server(path: bytes, arguments: list[str], kept: list[int], _spawn=util.spawnv_passfds) -> int:  # type: ignore[no-untyped-def, attr-defined]
    """Fork a sweep's own server of workers instead of starting Python again: it has imported everything too."""
    if "forkserver" not in arguments[-1]:
        return int(_spawn(path, arguments, kept))
    if pid := os.fork():
        return pid
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)
    exec(arguments[-1], {})
    os._exit(0)


def bench_process(*arguments: str | Path, **environment: str) -> Outcome:
    """Run a stage as `python -m bench` does."""
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def variant(path: Path, changes: str) -> Path:
    """Write an experiment file: Python that makes EXPERIMENT anew from the miniature one, whose names it knows."""
    known = f"import sys\nfrom dataclasses import replace\nsys.path.insert(0, {str(TESTS)!r})\nfrom miniature import *\n"
    path.write_text(f"{known}METHODS = {{method.paradigm: method for method in EXPERIMENT.methods}}\n{changes}\n")
    return path


ONE_RUNG = "EXPERIMENT = replace(EXPERIMENT, budget=1.2e9, rungs=(1.0,), num_seeds=((1,),))"
"""Changes to the smallest sweep there is: a run per method."""
