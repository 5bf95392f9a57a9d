"""What is read of a learning-rate search: winners, edges and regrets, computed by hand."""

import pandas as pd
import pytest

from bench.analysis.rates import at_best_rates, learning_rate_curves, search_notes, trials
from bench.results.columns import COLUMNS


def table(rows: list[tuple[str, float, int, float, float, float]]) -> pd.DataFrame:
    """Validation rows of runs: method, rate, seed, temperature, accuracy and FID."""
    frame = pd.DataFrame(rows, columns=["method", "learning_rate", "seed", "temperature", "prompt_accuracy", "fid"])
    name = frame["method"] + frame["learning_rate"].map(str) + frame["seed"].map(str)
    frame = frame.assign(run_id=name, width=64, depth=4, flops_budget=1e12, status="done", split="validation", guidance=1.5)
    return frame.reindex(columns=list(COLUMNS))


SEARCH = table(
    [
        ("mar", 1e-3, 0, 0.6, 0.90, 2.0),
        ("mar", 1e-3, 0, 1.0, 0.60, 1.5),
        ("mar", 2e-3, 0, 0.6, 0.80, 1.2),
        ("mar", 2e-3, 0, 1.0, 0.50, 1.0),
        ("mar", 4e-3, 0, 0.6, 0.85, 1.6),
        ("mar", 4e-3, 0, 1.0, 0.55, 1.1),
        ("diffusion", 1e-3, 0, 1.0, 0.2, 4.0),
        ("diffusion", 1e-3, 1, 1.0, 0.4, 3.0),
        ("diffusion", 2e-3, 0, 1.0, 0.7, 2.0),
        ("diffusion", 2e-3, 1, 1.0, 0.5, 2.0),
        ("next-token", 2e-3, 0, 1.0, 0.9, 1.0),
    ]
)


def test_each_run_counts_at_the_setting_that_is_best_for_the_criterion() -> None:
    found = trials(SEARCH)
    mine = found[(found["method"] == "mar") & (found["learning_rate"] == 1e-3)]
    assert dict(zip(mine["criterion"], mine["value"], strict=True)) == {"prompt_accuracy": 0.9, "fid": 1.5}
    assert list(dict.fromkeys(found["method"])) == ["diffusion", "next-token", "mar"]


def test_winners_edges_and_regrets() -> None:
    curves = learning_rate_curves(SEARCH)
    assert set(curves["method"]) == {"diffusion", "mar"}  # one rate is no search
    mar = curves[curves["method"] == "mar"].set_index(["criterion", "learning_rate"])
    assert mar.index[mar["is_best"]].tolist() == [("prompt_accuracy", 1e-3), ("fid", 2e-3)]
    assert mar.index[mar["at_edge"]].tolist() == [("prompt_accuracy", 1e-3)]
    assert mar.loc[("fid", 1e-3), "regret"] == pytest.approx(0.5)  # 1.5 is half more than 1.0
    assert mar.loc[("prompt_accuracy", 2e-3), "regret"] == pytest.approx(0.1)
    seeds = curves[(curves["method"] == "diffusion") & (curves["criterion"] == "prompt_accuracy")]
    assert seeds["value"].tolist() == pytest.approx([0.3, 0.6])
    assert seeds["num_seeds"].tolist() == [2, 2]


def test_what_is_at_an_edge_or_loses_is_said() -> None:
    curves = learning_rate_curves(SEARCH[SEARCH["method"] == "mar"])
    assert search_notes(curves, {("mar", 64): (1e-3,)}) == [
        "mar: the best learning rate by prompt accuracy, 0.001, is the lowest of 3 tried",
        "mar: learning rate 0.001 is not the best by FID: 1.5, and 1 at 0.002",
    ]
    assert len(search_notes(curves, {("mar", 64): (1e-3, 2e-3)})) == 1  # each criterion has its own
    assert len(search_notes(curves, {("mar", 96): (1e-3,)})) == 1  # another size was not searched


def test_each_criterion_reads_the_rate_that_is_best_for_it_on_validation_rows() -> None:
    """The test rows would choose otherwise, and have no say."""
    test = SEARCH[SEARCH["temperature"] == 1.0].assign(split="test", prompt_accuracy=0.5, fid=lambda f: -f["fid"])
    frame = pd.concat([SEARCH, test], ignore_index=True)
    for criterion, rate in (("prompt_accuracy", 1e-3), ("fid", 2e-3)):
        kept = at_best_rates(test, frame, criterion)
        assert kept[kept["method"] == "mar"]["learning_rate"].tolist() == [rate]
        assert kept[kept["method"] == "diffusion"]["seed"].tolist() == [0, 1]
        assert len(kept[kept["method"] == "next-token"]) == 1


def test_an_ordinary_table_has_no_curves() -> None:
    assert learning_rate_curves(SEARCH[SEARCH["learning_rate"] == 2e-3]).empty
    assert search_notes(learning_rate_curves(SEARCH.iloc[:0]), {}) == []
