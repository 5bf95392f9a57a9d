"""Every number that the page's charts, tables and explorer draw is one of the table, or follows from it."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from PIL import Image

from bench.analysis.comparison import Analysis, analyse
from bench.analysis.standing import COUNTED, standings
from bench.progress import format_number
from bench.report.explorer import sample_explorer
from bench.report.interactive import EXPLORED, embedded, page_data
from bench.results.columns import COLUMNS
from bench.results.folder import Results
from bench.results.table import load_table


@pytest.fixture(scope="module")
def data(report: Results) -> dict[str, Any]:
    """What the page holds for its scripts."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.report.read_text(), re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def rows(data: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({column["name"]: column["values"] for column in data["columns"]})


@pytest.fixture(scope="module")
def frame(report: Results) -> pd.DataFrame:
    """The test rows of averaged weights."""
    frame = load_table(report.root)
    return frame[(frame["split"] == "test") & frame["ema"].eq(True)].reset_index(drop=True)


def test_the_run_table_is_the_table(data: dict[str, Any], rows: pd.DataFrame, frame: pd.DataFrame) -> None:
    wanted = frame.dropna(axis=1, how="all")
    assert set(rows.columns) == set(wanted.columns)
    for name in rows:
        assert rows[name].tolist() == wanted[name].tolist(), name
    for column in data["columns"]:
        assert column["meaning"] == COLUMNS[column["name"]]
        if column["kind"] == "number":
            assert column["texts"] == [format_number(value) for value in column["values"]]
    assert 9 <= sum(column["shown"] for column in data["columns"]) <= 12


def test_points_and_means_of_the_charts(data: dict[str, Any], rows: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Means are recomputed here from the rows of the size whose validation mean is best."""
    for name, metric in data["metrics"].items():
        assert sorted(rows.loc[[point["row"] for point in metric["points"]], "run_id"]) == sorted(frame["run_id"])
        best = {point["row"] for point in metric["points"] if point["best"]}
        means = metric["means"]
        assert len(means) == 4 * 6
        assert set().union(*(mean["rows"] for mean in means)) == best
        for mean in means:
            seeds = rows.loc[mean["rows"]]
            assert set(seeds["method"]) == {mean["method"]}
            assert seeds["width"].nunique() == 1
            assert sorted(seeds["seed"]) == [0, 1, 2]
            assert mean["value"] == pytest.approx(seeds[name].mean(), rel=1e-12)
            assert mean["text"] == format_number(mean["value"])
            for axis, x in mean["x"].items():
                if x is not None:
                    assert x == pytest.approx(seeds[axis].mean(), rel=1e-12)


def test_the_cost_chart(data: dict[str, Any], rows: pd.DataFrame, report: Results) -> None:
    frame, top = load_table(report.root), rows["flops_budget"].max()
    for name in ("fid", "prompt_accuracy"):
        for point in data["metrics"][name]["front"]:
            runs = rows.loc[point["rows"], "run_id"]
            tried = frame[frame["run_id"].isin(runs) & (frame["split"] == "validation")]
            assert set(tried["flops_budget"]) == {top}
            assert point["value"] == pytest.approx(tried[name].mean(), rel=1e-12)
            assert point["cost"] == pytest.approx(tried["flops_per_sample"].mean(), rel=1e-12)
        for point in data["metrics"][name]["speed"]:
            row = rows.loc[point["row"]]
            assert (point["latency_ms_b1_p50"], point["images_per_s"]) == (row["latency_ms_b1_p50"], row["images_per_s"])


def test_laws_are_the_fits(data: dict[str, Any], report: Results) -> None:
    fits = analyse(load_table(report.root)).fits("fid")
    assert {law["method"] for law in data["metrics"]["fid"]["laws"]} == set(synthetic.LAWS)
    for law in data["metrics"]["fid"]["laws"]:
        compute, value, low, high = np.array(law["points"]).T
        fit = fits[law["method"]].law
        assert fit is not None
        np.testing.assert_allclose(value, fit(compute), rtol=1e-12)
        assert (low <= value).all()
        assert (value <= high).all()


def test_the_standing_on_the_page_is_the_tables(report: Results, frame: pd.DataFrame) -> None:
    """Three seeds of the largest budget at one size: mean and range of each cell, as the page writes them."""
    page = report.report.read_text()
    section = page[page.index('id="standing-section"') : page.index('id="training-section"')]
    found = standings(analyse(load_table(report.root)))
    assert [standing.chosen_for for standing in found] == ["prompt_accuracy", "fid"]
    for standing in found:
        assert standing.budget == frame["flops_budget"].max()
        for place in standing.places:
            runs = frame[frame["run_id"].isin(place.run_ids)]
            assert len(runs) == 3
            for column, cell in place.cells.items():
                assert (cell.low, cell.high) == (runs[column].min(), runs[column].max())
                assert cell.mean == pytest.approx(runs[column].mean(), rel=1e-12)
                assert f"<b>{format_number(cell.mean)}</b>" in section


def standing_of(values: dict[str, list[float]], column: str = "fid") -> dict[str, str]:
    """The marks of methods whose seeds have these values at one budget and size."""
    frame = synthetic.table(np.array([1e19]), num_sizes=1, raw=False)
    frame = frame[frame["method"].isin(values)]
    frame[column] = [values[method][seed] for method, seed in zip(frame["method"], frame["seed"], strict=True)]
    found = next(each for each in standings(analyse(frame)) if each.chosen_for == "fid")
    return {place.method: place.cells[column].mark for place in found.places}


def test_ties_are_what_the_seeds_cannot_tell() -> None:
    marks = standing_of({"diffusion": [1.0, 1.01, 1.02], "mar": [1.0, 1.02, 1.04], "next-token": [3.0, 3.03, 3.06]})
    assert marks == {"diffusion": "best", "mar": "tied", "next-token": "behind"}
    counted = standing_of({"diffusion": [5.0, 9.0, 5.0], "mar": [8.0, 8.0, 20.0], "next-token": [10.0, 10.0, 10.0]}, COUNTED)
    assert counted == {"diffusion": "best", "mar": "tied", "next-token": "behind"}


def test_a_single_seed_is_not_tested() -> None:
    frame = synthetic.table(np.array([1e19]), num_sizes=1, num_seeds=1, raw=False)
    marks = [cell.mark for place in standings(analyse(frame))[0].places for name, cell in place.cells.items() if name == "fid"]
    assert sorted(marks) == ["best", "untested", "untested", "untested"]


def test_the_explorer_shows_the_runs_own_pictures(report: Results, data: dict[str, Any]) -> None:
    """Verdicts are those that the runs kept, and every square is the run's."""
    samples, analysis = data["samples"], analyse(load_table(report.root))
    best = analysis.best_runs("prompt_accuracy")
    assert [caption["text"] for caption in samples["captions"]] == list(synthetic.CAPTIONS)
    assert len(samples["cells"]) == len(synthetic.CAPTIONS) * 4 * 2
    with Image.open(report.examples) as image:
        sheet = np.asarray(image.convert("RGB"))
    numbers = {run_id: place for place, run_id in enumerate(_with_examples(report))}
    for cell in samples["cells"]:
        budget = sorted(best["flops_budget"].unique())[-2:][cell["budget"]]
        cells = best[(best["method"] == cell["method"]) & (best["flops_budget"] == budget) & (best["seed"] == 0)]
        number = numbers[cells["run_id"].iloc[0]]
        y, x = divmod(cell["place"], samples["columns"])
        assert (sheet[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] == 40 + number % 100).all()
        assert cell["obeyed"] == ((number + cell["caption"]) % 3 != 0)


def _with_examples(report: Results) -> list[str]:
    frame = load_table(report.root)
    return list(frame[(frame["seed"] == 0) & (frame["flops_budget"] > 5e18)].drop_duplicates("run_id")["run_id"])


def test_kept_examples_are_shown_when_the_runs_are_gone(report: Results, data: dict[str, Any], tmp_path: Any) -> None:
    """And a damaged picture is one line."""
    results = synthetic.write(tmp_path, load_table(report.root))
    analysis = Analysis(load_table(results.root))
    assert sample_explorer(analysis, results) is None
    results.figures.mkdir()
    results.examples.write_bytes(report.examples.read_bytes())
    found = sample_explorer(analysis, results)
    assert found is not None
    assert found == data["samples"]
    Image.new("RGB", (8, 8)).save(results.examples)
    with pytest.raises(ValueError, match=r"examples.png is damaged .*; delete it"):
        sample_explorer(analysis, results)


def test_text_cannot_leave_its_script() -> None:
    text = embedded({"a": "</script><script>alert(1)</script><!-- &amp; \u2028", "b": float("nan"), "c": np.float64(0.1)})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><script>alert(1)</script><!-- &amp; \u2028", "b": None, "c": 0.1}


def test_figures_of_the_charts_stay_files(report: Results) -> None:
    """The page shows them as charts and not again as pictures; papers take the files."""
    page = report.report.read_text()
    drawn = {path.stem for path in report.figures.glob("*.svg")}
    explored = {name for name in drawn if name.endswith(EXPLORED)}
    assert len(explored) >= 8
    assert not {name for name in explored if f'<figure id="{name}"' in page}
    assert {name for name in drawn - explored if f'<figure id="{name}"' in page} == drawn - explored


def test_a_table_without_finished_runs_has_a_page_without_charts() -> None:
    frame = synthetic.table(np.array([1e19]), num_sizes=1, num_seeds=1).assign(status="failed", error="out of memory")
    data = page_data(analyse(frame), frame)
    assert (data["methods"], data["metrics"]) == ([], {})
    assert next(column for column in data["columns"] if column["name"] == "error")["shown"]
