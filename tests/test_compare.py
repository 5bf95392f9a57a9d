"""Two sweeps of one protocol side by side."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from command_line import bench

from bench.analysis.comparison import analyse
from bench.analysis.side_by_side import cell_differences, check_one_protocol, experiment_differences

BUDGETS = np.array([1e18, 1e19])


def sweep(folder: Path, frame: pd.DataFrame, **identity: object) -> Path:
    results = synthetic.write(folder, frame)
    results.experiment.write_text(json.dumps({"name": folder.name, "budget": 1e19, "runs": {}, **identity}))
    return folder


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic.table(BUDGETS, num_sizes=1, raw=False)


def test_a_planted_difference_is_found_and_no_other(table: pd.DataFrame) -> None:
    """Diffusion's FID is halved in a sweep of other seeds; every other cell differs by the noise of its seeds alone."""
    other = synthetic.table(BUDGETS, num_sizes=1, raw=False, seed=1)
    other.loc[other["method"] == "diffusion", "fid"] /= 2
    found = cell_differences(analyse(table), analyse(other))
    assert len({(cell.metric, cell.method, cell.budget) for cell in found}) == len(found)
    fid = [cell for cell in found if cell.metric == "fid"]
    assert len(fid) == 4 * 2
    for cell in fid:
        rows = [frame[(frame["split"] == "test") & (frame["method"] == cell.method)] for frame in (table, other)]
        means = [each[each["flops_budget"] == cell.budget]["fid"].mean() for each in rows]
        assert [cell.first, cell.second] == pytest.approx(means, rel=1e-12)
        assert cell.num_seeds == (3, 3)
        assert cell.effect is not None
        assert cell.said == ("better" if cell.method == "diffusion" else "undecided")
        if cell.method == "diffusion":
            assert cell.effect.low < 0.5 < cell.effect.high
            assert cell.effect.high < 1
    assert all(cell.said != "worse" for cell in found)


def test_a_sweep_equals_itself(table: pd.DataFrame) -> None:
    assert all(
        cell.first == cell.second and cell.said in ("undecided", "equal") for cell in cell_differences(*[analyse(table)] * 2)
    )


def test_single_seeds_have_no_interval(table: pd.DataFrame) -> None:
    one = analyse(synthetic.table(BUDGETS, num_sizes=1, num_seeds=1, raw=False))
    found = cell_differences(analyse(table), one)
    assert found
    assert all(cell.effect is None for cell in found)
    assert {cell.said for cell in found if cell.metric == "fid"} == {"no interval"}


def test_what_differs_in_the_experiment() -> None:
    a = {"name": "a", "runs": {"x": 1}, "recipe": {"batch_size": 32, "rates": [1, 2]}, "methods": [{"label": "m"}], "same": None}
    b = {
        "name": "b",
        "runs": {"y": 2},
        "recipe": {"batch_size": 64, "rates": [1, 3]},
        "methods": [{"label": "m", "new": 1}],
        "same": None,
    }
    assert experiment_differences(a, b) == [
        ("methods[0].new", "absent", "1"),
        ("name", "a", "b"),
        ("recipe.batch_size", "32", "64"),
        ("recipe.rates", "1, 2", "1, 3"),
    ]


def test_the_command_line(table: pd.DataFrame, tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", table, recipe={"ema": 0.99})
    b = sweep(tmp_path / "b", table[table["method"] != "mar"].assign(device="other"), recipe={"ema": 0.999})
    done = bench("compare", a, b)
    assert done.status == 0
    assert f"{b} (B) against {a} (A), protocol p" in done.out
    assert "recipe.ema: 0.99 (A), 0.999 (B)" in done.out
    assert "device: cpu (A), other (B)" in done.out
    assert "only in A: mar" in done.out
    assert len([line for line in done.out.splitlines() if line.split()[:2] == ["fid", "diffusion"]]) == 2
    one, two = (json.loads(line) for line in bench("compare", a, b, a.parent / "b" / ".." / "a", "--json").out.splitlines())
    assert {cell["said"] for cell in one["cells"]} <= {"undecided", "equal"}
    assert two["differs"] == []


def test_other_protocols_and_lone_folders_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", table)
    b = sweep(tmp_path / "b", table.assign(protocol="q"))
    c = sweep(tmp_path / "c", table.assign(status="failed"))
    for arguments, said in (
        ((a, b), "has protocol q"),
        ((a, c), "has no finished run"),
        ((a,), "needs two or more"),
        ((a, a), "needs two or more"),
        ((a, tmp_path / "none"), "does not exist"),
    ):
        done = bench("compare", *arguments)
        assert (done.status, len(done.err.splitlines())) == (2, 1)
        assert said in done.err
    assert check_one_protocol({"a": analyse(table)}) == "p"
