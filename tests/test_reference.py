"""The committed reference sweep: it is whole, and the notebook's code runs on it."""

import ast
import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.analysis.metrics import METRICS, best_per_budget
from bench.results.table import finished_rows, load_table

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "shapes-reference"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return finished_rows(load_table(REFERENCE))


def test_the_reference_compares_four_paradigms(rows: pd.DataFrame) -> None:
    assert set(rows["method"]) == {"diffusion", "next-token", "masked-token", "mar"}
    assert rows["flops_budget"].nunique() >= 3
    assert rows["flops_budget"].max() / rows["flops_budget"].min() >= 5
    assert rows.groupby("method")["width"].nunique().min() >= 2
    top = rows[rows["flops_budget"] == rows["flops_budget"].max()]
    assert top.groupby("method")["seed"].nunique().min() >= 2
    assert ((rows["flops_spent"] / rows["flops_budget"] - 1).abs() <= 0.01).all()
    assert rows["protocol"].nunique() == 1


def test_best_size_per_budget_is_the_best(rows: pd.DataFrame) -> None:
    best = best_per_budget(finished_rows(load_table(REFERENCE), "fid"), METRICS["fid"])
    means = finished_rows(load_table(REFERENCE), "fid").groupby(["method", "flops_budget", "width"])["fid"].mean()
    for _, cell in best.iterrows():
        assert cell["value"] == pytest.approx(means[cell["method"], cell["flops_budget"]].min())


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    """Code of the notebook."""
    every = json.loads((ROOT / "notebooks" / "scaling_laws.ipynb").read_text())["cells"]
    return [cell for cell in every if cell["cell_type"] == "code"]


def test_the_notebook_runs(cells: list[dict], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell in order; what ends one is a table or a figure."""
    monkeypatch.chdir(ROOT)
    first, *rest = ["".join(cell["source"]) for cell in cells]
    space: dict[str, object] = {}
    magic, _, code = first.partition("\n")
    assert magic == "%matplotlib inline"  # else a notebook shows a figure's name in its place
    exec(code, space)
    said = capsys.readouterr().out
    assert "training FLOPs per run" in said
    assert "Above its offset the validation loss falls as C^-" in said
    shown = []
    for text in rest:
        *before, last = ast.parse(text).body
        exec(compile(ast.Module(before, []), "cell", "exec"), space)
        shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), space))
    assert all(isinstance(value, pd.DataFrame | Figure) for value in shown)
    assert sum(isinstance(value, Figure) for value in shown) >= 6


def test_the_notebook_is_committed_with_what_it_shows(cells: list[dict]) -> None:
    kinds = [{kind for output in cell["outputs"] for kind in output.get("data", {"text": ""})} for cell in cells]
    assert all(kinds)
    assert sum("image/png" in each for each in kinds) >= 6
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
