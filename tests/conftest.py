"""What all tests share: one thread, one world, one finished miniature sweep, one report of a table with known laws."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch
from command_line import MINIATURE, bench_process, sweep_of
from filelock import FileLock

from bench.data.shapes_world import ShapesWorld
from bench.report.page import write_report
from bench.results.folder import Results

torch.set_num_threads(1)

LONGEST_FIRST = """
    parametrization own_data verifier sprites_verifier hostile table_coverage heads coverage gpu_walk transfer ladder sweep
    single_changes cluster plugins page resume paradigms evaluation_share devices plan flops broken_plugins figures browser
""".split()
"""Files are given to whoever is free; the long ones go first, so that all end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


STARTED = time.time()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """No test marked slow begins more than NO_SLOW_TEST_AFTER seconds after the start, where that is set."""
    if item.get_closest_marker("slow") and time.time() - STARTED > float(os.environ.get("NO_SLOW_TEST_AFTER", "inf")):
        pytest.skip("no time is left: NO_SLOW_TEST_AFTER")


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that whichever test process needs it first fills, and the others wait for."""
    base = factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{root}.lock"):
        if not root.exists():
            partial = root.with_name(f"{name}-partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(root)
    return root


@pytest.fixture(scope="session")
def world() -> ShapesWorld:
    return ShapesWorld()


def _sweep(folder: Path) -> None:
    done = bench_process(*sweep_of(MINIATURE, folder / "results"))
    assert done.status == 0, done.err
    (folder / "out.txt").write_text(done.out)
    (folder / "err.txt").write_text(done.err)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one finished sweep of miniature.py for all tests, to be read only; what it said lies beside as err.txt."""
    return shared(tmp_path_factory, "miniature", _sweep) / "results"


@pytest.fixture
def own_sweep(swept: Path, tmp_path: Path) -> Path:
    """A copy of the finished sweep that a test may change."""
    return Path(shutil.copytree(swept, tmp_path / "results"))


def _report(folder: Path) -> None:
    frame = synthetic.table(np.logspace(17, 19.5, 6))
    results = synthetic.write(folder, frame)
    synthetic.write_examples(results, frame[frame["flops_budget"] > 5e18])
    write_report(results)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The report of the synthetic table, drawn once for all tests, to be read only."""
    return Results(shared(tmp_path_factory, "report", _report))
