"""The report of a table: files, page, and what a poor table leaves of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.analysis.comparison import analyse
from bench.analysis.forecast import add_forecast, make_forecast
from bench.report.figures import tuning_charts
from bench.report.page import write_report
from bench.report.samples import MISSED, OBEYED, sample_grid
from bench.report.tables import tuning
from bench.results.columns import ALL_COLUMNS, COLUMNS, column_dictionary
from bench.results.folder import Results
from bench.results.table import load_search, load_table

RESULTS = Path(__file__).parent.parent / "results"
BUDGETS = np.logspace(17, 19.5, 6)


def test_figures_are_not_empty(report: Results) -> None:
    pictures = sorted(set(report.figures.glob("*.png")) - {report.examples})  # a sheet of pictures is no figure
    assert {p.stem for p in pictures} >= {
        "fid-against-training-flops",
        "kid-against-training-flops",
        "prompt-accuracy-against-training-flops",
        "isoflop-fid",
        "best-sizes-fid",
        "fid-against-speed",
        "seen-against-held-out",
        "attributes",
        "sampling-flops-by-part",
        "averaged-against-raw-weights",
    }
    for path in pictures:
        assert path.with_suffix(".svg").exists()
        with Image.open(path) as image:
            colors = image.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colors is not None
        assert len(colors) > 20


@pytest.mark.slow
def test_equal_tables_give_equal_files(tmp_path: Path) -> None:
    once, again = (
        synthetic.write(tmp_path / name, synthetic.table(BUDGETS[:2], num_sizes=3, num_seeds=2))
        for name in ("table-one", "table-two")
    )
    write_report(once)
    write_report(again)
    for path in sorted(once.figures.iterdir()):
        assert path.read_bytes() == (again.figures / path.name).read_bytes(), path.name
    assert once.report.read_text().replace("table-one", "") == again.report.read_text().replace("table-two", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            lambda f: f.assign(fid=np.where(f["method"] == "mar", np.nan, f["fid"])),
            "finished runs have no fid",
            marks=pytest.mark.slow,
        ),
        (lambda f: f[f["flops_budget"] == f["flops_budget"].max()], "one budget only"),
        (lambda f: f.assign(status="failed", error="out of memory"), "no finished run on test captions"),
        pytest.param(
            lambda f: f.assign(protocol=np.where(f["seed"] == 2, "q", "p")),
            "rows of other protocols (q) are left out",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["nan", "one-budget", "all-failed", "protocols"],
)
def test_poor_tables_say_so_and_draw_what_is_left(change, said: str, tmp_path: Path) -> None:
    frame = synthetic.table(BUDGETS, num_sizes=2, raw=False)
    results = synthetic.write(tmp_path, change(frame[frame["method"].isin(["mar", "next-token"])]))
    found = write_report(results)
    assert any(said in note for note in found.notes)
    assert all("\n" not in note for note in found.notes)
    page = (tmp_path / "report.html").read_text()
    assert said.split("(")[0].strip() in page
    if found.methods:
        one = found.frame["flops_budget"].nunique() == 1
        name = "prompt-accuracy-by-method" if one else "prompt-accuracy-against-training-flops"
        assert (results.figures / f"{name}.png").exists()


def test_runs_that_were_measured_by_their_loss_alone_have_a_page(tmp_path: Path) -> None:
    frame = synthetic.table(BUDGETS[:1], num_sizes=1, num_seeds=2, raw=False).drop_duplicates("run_id")
    measured = ["fid", "kid", "prompt_accuracy", "flops_per_sample", "latency_ms_b1_p50", "images_per_s"]
    frame = frame.assign(split=None, validation_loss=np.linspace(1, 2, len(frame)), **dict.fromkeys(measured, np.nan))
    results = synthetic.write(tmp_path, frame)
    write_report(results)
    assert "measured by their validation loss alone; nothing was sampled" in results.report.read_text()


def test_missing_columns_are_one_line(tmp_path: Path) -> None:
    results = synthetic.write(tmp_path, synthetic.table(BUDGETS).drop(columns=["fid", "kid"]))
    with pytest.raises(ValueError, match=r"lacks the columns fid, kid; rebuild it with"):
        write_report(results)


@pytest.mark.slow
def test_text_of_the_table_cannot_run(tmp_path: Path) -> None:
    frame = synthetic.table(BUDGETS, num_sizes=2, raw=False)
    frame["method"] = frame["method"].replace({"mar": synthetic.HOSTILE})
    frame["error"] = synthetic.HOSTILE
    page = (write_report(synthetic.write(tmp_path, frame)) and (tmp_path / "report.html").read_text()) or ""
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;document" in page


def test_the_column_dictionary_is_current() -> None:
    """Regenerate it with: python -c "from bench.results import column_dictionary as d; print(d(), end='')" > docs/columns.md"""
    assert (Path(__file__).parent.parent / "docs" / "columns.md").read_text() == column_dictionary()


def test_columns_are_documented_on_the_page(report: Results) -> None:
    page = (report.root / "report.html").read_text()
    assert all(f"<dt>{name}</dt>" in page for name in COLUMNS)


def test_hashes_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    """A protocol of digits and one e is no float; found when one was read as infinity."""
    frame = synthetic.table(BUDGETS).assign(protocol="12e34567", git_sha="000000123456")
    frame.to_csv(tmp_path / "table.csv", index=False)
    found = load_table(tmp_path)
    assert set(found["protocol"]) == {"12e34567"}
    assert set(found["git_sha"]) == {"000000123456"}


def test_a_report_removes_an_earlier_ones_figures_and_nothing_else(tmp_path: Path) -> None:
    frame = synthetic.table(BUDGETS[:2], num_sizes=1, num_seeds=1, raw=False)
    results = synthetic.write(tmp_path, frame[frame["method"] == "mar"])
    results.figures.mkdir()
    for name in ("isoflop-fid.png", "isoflop-fid.svg", "mine.png", "yours.svg", "samples.png"):
        (results.figures / name).write_text("old")
    write_report(results)
    left = {path.name for path in results.figures.iterdir()}
    assert {"mine.png", "yours.svg", "samples.png"} <= left
    assert not {"isoflop-fid.png", "isoflop-fid.svg"} & left
    assert "figures are not drawn" in (tmp_path / "report.html").read_text()


def test_tuning_says_counts_rates_and_edges() -> None:
    """The default's search: six rates for each method, none of the best at an edge; four pairs of temperature and guidance."""
    results = Results(RESULTS / "shapes-reference")
    analysis, search = analyse(load_table(results.root), num_draws=60), load_search(results)
    said = tuning(analysis, search)
    assert said["counts"] == ["4 sampler settings tried for every method.", "6 learning rates tried for every method."]
    assert {row[1] for row in said["rates"]} == set(analysis.methods)
    assert said["edges"]
    assert "learning rate" not in {row[1] for row in said["edges"]}
    drawn = {chart.name for chart in tuning_charts(analysis, search) if not chart.missing}
    assert {"learning-rates-fid", "learning-rates-prompt-accuracy"} <= drawn


def test_unequal_tuning_is_said() -> None:
    frame = synthetic.table(BUDGETS[:2], num_sizes=1, num_seeds=1, raw=False)
    more = frame[(frame["split"] == "validation") & (frame["method"] == "mar")].assign(guidance=2.5)
    said = tuning(analyse(pd.concat([frame, more], ignore_index=True), num_draws=60), None)
    assert said["counts"][0].startswith(
        "Unequal numbers of sampler settings tried: diffusion 1, next-token 1, masked-token 1, mar 2."
    )


def test_samples_show_words_and_verdicts(tmp_path: Path) -> None:
    """Each run's picture carries its prompts and verdicts; one without them is shown without."""
    results = synthetic.write(tmp_path, synthetic.table(BUDGETS[:1], num_sizes=1, num_seeds=1))
    verdicts = {"diffusion": [True] * 8, "next-token": [False] * 8, "masked-token": [True, False] * 4}
    for run_id, method in load_table(tmp_path)[["run_id", "method"]].drop_duplicates().itertuples(index=False):
        text = PngInfo()
        if method in verdicts:
            text.add_itxt("prompts", json.dumps(["a small red circle"] * 8))
            text.add_itxt("obeyed", json.dumps(verdicts[method]))
        results.run_folder(run_id).path.mkdir(parents=True)
        Image.new("RGB", (8 * 32, 32), "#123456").save(results.run_folder(run_id).samples, pnginfo=text)
    grid = sample_grid(analyse(load_table(tmp_path), num_draws=20), results)
    assert grid is not None
    picture = np.asarray(grid.image.convert("RGB"))
    rows = np.flatnonzero((picture == [0x12, 0x34, 0x56]).all(2).any(1))
    bands = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    assert len(bands) == 4

    def share(band: np.ndarray, color: str) -> float:
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        return float((picture[band[0] - 3 : band[-1] + 15] == wanted).all(2).sum())

    counts = [(share(band, OBEYED), share(band, MISSED)) for band in bands]
    assert counts[0][0] > 0 == counts[0][1]
    assert counts[1][1] > 0 == counts[1][0]
    assert counts[2][0] > 0 < counts[2][1]
    assert counts[3] == (0, 0)
    assert (picture[: bands[0][0] - 20] < 100).all(2).any()  # the words stand above
    assert "A check and a blue frame" in grid.caption


def test_a_table_of_an_older_schema_is_read_with_newer_columns_empty(tmp_path: Path) -> None:
    newer = [column.name for column in ALL_COLUMNS if column.in_table and column.since > 1]
    assert newer
    synthetic.table(BUDGETS[:1], num_sizes=1).drop(columns=newer).to_csv(tmp_path / "table.csv", index=False)
    found = load_table(tmp_path)
    assert list(found.columns) == list(COLUMNS)
    assert found[newer].isna().all().all()


@pytest.mark.slow
def test_a_forecast_is_shown_and_scored(tmp_path: Path) -> None:
    """Before anything is trained the page gives the predictions; afterwards how they fared, and whether they were changed."""
    full = synthetic.table(np.append(BUDGETS, 1e20), num_sizes=1, raw=False)
    made = make_forecast(analyse(full[full["flops_budget"] < 1e20], num_draws=100), 1e20)
    results = synthetic.write(tmp_path, full[full["flops_budget"] < 1e20])
    results.forecast.write_text(json.dumps(add_forecast({}, made)))
    write_report(results)
    before = results.report.read_text()
    assert "nothing has been trained at the forecast&#39;s budget yet" in before
    assert "FID of diffusion" in before
    full.to_csv(results.table, index=False)
    write_report(results)
    after = results.report.read_text()
    section = after[after.index('id="forecast-section"') :]
    assert "predicted intervals hold the mean over seeds" in section
    assert section.count(" of 3</td>") >= len(made["predictions"])
    assert "<p>Hash:" not in section  # the scripts below may have the word
    made["predictions"][0]["value"] *= 2
    results.forecast.write_text(json.dumps(add_forecast({}, made)))
    write_report(results)
    assert "was changed after it was made" in results.report.read_text()
