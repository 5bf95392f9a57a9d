"""The leaderboard of submissions, and what it exports."""

import hashlib
import html
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, chromium
from command_line import bench

from bench.data.open import open_data
from bench.results.folder import Results
from bench.results.table import load_table, save_frame
from bench.submission.croissant import describe_world

EVALUATION = {
    "schema_version",
    "evaluation_id",
    "retrieved_timestamp",
    "source_metadata",
    "model_info",
    "eval_library",
    "evaluation_results",
}
"""What every record of Every Eval Ever must have."""


@pytest.fixture(scope="module")
def written(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The leaderboard of the miniature sweep under two names."""
    folder = tmp_path_factory.mktemp("leaderboard")
    for name in ("mine", "<b>theirs<b>"):
        shutil.copytree(swept, folder / name, ignore=shutil.ignore_patterns("cache", "trunks", "figures"))
    done = bench("leaderboard", folder / "mine", folder / "<b>theirs<b>", "--reference", swept, "--out", folder / "out")
    assert done.status == 0, done.err
    assert {folder / "out" / "leaderboard.html", folder / "out" / "standing.csv"} < set(map(Path, done.out.splitlines()))
    return folder / "out"


def test_the_standing_holds_the_tables_means(written: Path, swept: Path) -> None:
    frame, table = pd.read_csv(written / "standing.csv"), load_table(swept)
    assert set(frame["flops_budget"]) == {2e9, 4e9}
    assert frame["method"].nunique() == 4 * 2
    for method, chosen_for in (("diffusion", "fid"), ("mar", "prompt_accuracy")):
        test = table[(table["method"] == method) & (table["split"] == "test") & table["ema"].eq(True)]
        test = test[test["tuned_for"].str.contains(chosen_for) & (test["flops_budget"] == 4e9)]
        named = frame[(frame["sampler_chosen_for"] == chosen_for) & (frame["flops_budget"] == 4e9)]
        for submission in ("mine", "<b>theirs<b>"):
            cell = named[(named["method"] == f"{method} ({submission})") & (named["measure"] == "fid")]
            assert cell["mean"].tolist() == pytest.approx(test["fid"].tolist(), rel=1e-12)


def test_the_page_escapes_names_and_runs_nothing(written: Path) -> None:
    page = (written / "leaderboard.html").read_text()
    assert "&lt;b&gt;theirs&lt;b&gt;" in page
    assert "<b>theirs" not in page
    assert "<script" not in page
    assert "default-src 'none'" in html.unescape(page)
    assert "4e9 training FLOPs per run" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(written: Path, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        for width in (1280, 390):
            page.open((written / "leaderboard.html").as_uri(), width, 900)
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.run("document.querySelectorAll('details[open] table').length") >= 1
        assert page.problems == []
        assert [address for address in page.requests if not address.startswith("file:")] == []


def test_records_of_every_eval_ever(written: Path, swept: Path) -> None:
    paths = sorted((written / "every-eval-ever").rglob("*.json"))
    assert len(paths) == 2 * 4
    table = load_table(swept)
    for path in paths:
        found = json.loads(path.read_text())
        assert found.keys() == EVALUATION | {"evaluation_timestamp"}
        assert found["source_metadata"]["evaluator_relationship"] == "first_party"
        assert found["model_info"]["id"] == f"{path.parent.name}/{path.stem}"
        names = [result["evaluation_result_id"] for result in found["evaluation_results"]]
        assert len(set(names)) == len(names) > 0
        for result in found["evaluation_results"]:
            assert {"evaluation_name", "source_data", "metric_config", "score_details"} <= result.keys()
            assert isinstance(result["metric_config"]["lower_is_better"], bool)
            assert isinstance(result["score_details"]["score"], float)
            assert all(isinstance(value, str) for value in result["generation_config"]["additional_details"].values())
            if result["metric_config"]["metric_id"] == "paradigm-bench.fid":
                assert result["score_details"]["score"] in set(table["fid"].dropna())
                assert result["score_details"]["uncertainty"]["standard_error"]["value"] > 0  # one seed


@pytest.mark.parametrize("world", ["shapes32", "sprites40"])
def test_a_world_as_croissant(world: str) -> None:
    captions, found = describe_world(world, "captions.csv")
    assert {
        "@context",
        "@type",
        "conformsTo",
        "name",
        "description",
        "license",
        "url",
        "distribution",
        "recordSet",
    } <= found.keys()
    (file,) = found["distribution"]
    assert file["sha256"] == hashlib.sha256(captions.encode()).hexdigest()
    fields = found["recordSet"][0]["field"]
    header, *rows = [line.split(",", 2) for line in captions.splitlines()]
    assert [field["source"]["extract"]["column"] for field in fields] == header
    assert all(field["source"]["fileObject"]["@id"] == file["@id"] for field in fields)
    assert len({(split, index) for split, index, _ in rows}) == len(rows)
    dataset = open_data(world)
    for _, _, caption in rows[::200]:
        assert dataset.read_condition(caption).shape[0] == 1


def test_what_does_not_compare_is_refused(own_sweep: Path, swept: Path, tmp_path: Path) -> None:
    same = bench("leaderboard", own_sweep, own_sweep, "--out", tmp_path / "out")
    assert (same.status, "two submissions are called results" in same.err) == (2, True)
    table = Results(own_sweep).table
    frame = load_table(own_sweep)
    frame["fid"] *= 0.5
    save_frame(frame, table)
    done = bench("leaderboard", swept, own_sweep, "--out", tmp_path / "out")
    assert done.status == 2
    assert all(line.startswith(("refused: ", "no reference")) for line in done.err.splitlines())
    assert not (tmp_path / "out").exists()
