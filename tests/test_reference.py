"""The committed reference sweep: it is whole, and the notebook's code runs on it."""

import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench import plot
from bench.results import finished_rows, load_table

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "shapes-cpu"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return finished_rows(load_table(REFERENCE))


def test_the_reference_compares_four_paradigms(rows: pd.DataFrame) -> None:
    assert set(rows["method"]) == {"diffusion", "next-token", "masked-token", "mar"}
    assert rows["flops_budget"].nunique() >= 3
    assert rows["flops_budget"].max() / rows["flops_budget"].min() >= 10
    assert rows.groupby("method")["width"].nunique().min() >= 2
    top = rows[rows["flops_budget"] == rows["flops_budget"].max()]
    assert top.groupby("method")["seed"].nunique().min() >= 2
    assert ((rows["flops_spent"] / rows["flops_budget"] - 1).abs() <= 0.01).all()
    assert rows["protocol"].nunique() == 1


def test_equal_tables_give_equal_figures(rows: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("a", "b"):
        plot.quality_against_training(rows, "fid").savefig(tmp_path / f"{name}.png", metadata={"Software": None})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_best_size_per_budget_is_the_best(rows: pd.DataFrame) -> None:
    best = plot.best_per_budget(rows, plot.METRICS["fid"])
    means = rows.groupby(["method", "flops_budget", "width"])["fid"].mean()
    for _, cell in best.iterrows():
        assert cell["value"] == pytest.approx(means[cell["method"], cell["flops_budget"]].min())


def test_notebook_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cells = json.loads((ROOT / "notebooks" / "scaling_laws.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    space: dict[str, object] = {}
    for text in code[:1]:
        exec(text, space)
    for text in code[1:]:
        assert isinstance(eval(text, space), Figure)
