"""Forecasts: made before training, kept with a hash, scored after."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from bench.__main__ import main
from bench.analysis.comparison import analyse
from bench.analysis.forecast import add_forecast, check_forecast, forecast_summary, make_forecast, score_forecast

NEXT_BUDGET = 1e20


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return synthetic.table(synthetic.BUDGETS, raw=False)


@pytest.fixture(scope="module")
def forecast(frame: pd.DataFrame) -> dict:
    return make_forecast(analyse(frame, num_draws=300), NEXT_BUDGET)


@pytest.fixture(scope="module")
def later() -> pd.DataFrame:
    """The same methods with the forecast's budget trained too; another seed of the noise."""
    return synthetic.table(np.append(synthetic.BUDGETS, NEXT_BUDGET), raw=False, seed=5)


def test_a_forecast_holds_a_value_with_an_interval_for_every_fitted_method(forecast: dict) -> None:
    said = {(p["metric"], p["method"]): p for p in forecast["predictions"]}
    assert {metric for metric, _ in said} == {"fid", "kid", "prompt_accuracy", "validation_loss"}
    for method, (offset, scale, exponent) in synthetic.LAWS.items():
        found = said["fid", method]
        assert found["low"] < found["value"] < found["high"]
        truth = offset + scale * (NEXT_BUDGET / 1e17) ** -exponent
        assert found["low"] * 0.97 < truth < found["high"] * 1.03
        share = said["prompt_accuracy", method]
        assert 0 <= share["low"] < share["value"] < share["high"] <= 1
    sizes = {(p["metric"], p["method"]): p for p in forecast["best_sizes"]}
    assert sizes["fid", "mar"]["low"] < 1e6 * np.sqrt(NEXT_BUDGET / 1e17) < sizes["fid", "mar"]["high"]


def test_it_is_the_same_when_made_again_and_survives_json(forecast: dict, frame: pd.DataFrame) -> None:
    again = make_forecast(analyse(frame, num_draws=300), NEXT_BUDGET)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(forecast))
    assert check_forecast(json.loads(json.dumps(forecast)), frame) == ""


def test_budgets_may_be_whole_numbers_as_in_a_file() -> None:
    """A table that was read has integers, and rungs that were measured by their loss alone belong to the range."""
    frame = synthetic.table(np.logspace(15, 17.5, 6).round(), num_sizes=3, raw=False)
    frame["flops_budget"] = frame["flops_budget"].astype("int64")
    low = frame["flops_budget"].min()
    frame.loc[frame["flops_budget"] == low, ["fid", "kid", "prompt_accuracy"]] = np.nan
    made = json.loads(json.dumps(make_forecast(analyse(frame, num_draws=60), 1e18)))
    assert made["fitted_budgets"] == [float(low), float(frame["flops_budget"].max())]
    assert {said["metric"] for said in made["predictions"]} == {"validation_loss"}


def test_changes_after_the_fact_are_seen(forecast: dict, frame: pd.DataFrame) -> None:
    better = json.loads(json.dumps(forecast))
    better["predictions"][0]["high"] *= 2
    assert "changed after it was made" in check_forecast(better, frame)
    altered = frame.copy()
    altered.loc[altered["split"] == "test", "fid"] *= 1.001
    assert "changed after it was made" in check_forecast(forecast, altered)
    assert "not in this table" in check_forecast(forecast, frame[frame["method"] != "mar"])


def test_scores_say_what_lies_inside(forecast: dict, later: pd.DataFrame) -> None:
    scores = score_forecast(forecast, analyse(later, num_draws=50))
    assert len(scores) == len(forecast["predictions"])
    assert sum(s.held for s in scores) >= 0.8 * len(scores)
    assert "predicted intervals hold the mean over seeds" in forecast_summary(scores)
    assert forecast_summary([]) == "nothing has been trained at the forecast's budget yet"


def test_the_interval_score_by_hand(forecast: dict, later: pd.DataFrame) -> None:
    """One run at 4 for an interval of 1 to 2: log 2 wide, and 40 times log 2 outside (Gneiting & Raftery 2007)."""
    said = {"method": "mar", "metric": "fid", "value": 1.5, "low": 1.0, "high": 2.0}
    made = {**forecast, "predictions": [said]}
    scores = score_forecast(made, analyse(later.assign(fid=4.0), num_draws=50))
    assert scores[0].interval_score == pytest.approx(41 * np.log(2))
    assert (scores[0].held, scores[0].num_inside) == (False, 0)


def test_other_protocols_are_not_scored(forecast: dict, later: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="protocol"):
        score_forecast(forecast, analyse(later.assign(protocol="q")))


def test_forecasts_are_kept_one_per_budget(forecast: dict) -> None:
    other = {**forecast, "budget": 2e19}
    kept = add_forecast(add_forecast({}, forecast), other)
    assert [f["budget"] for f in kept["forecasts"]] == [2e19, NEXT_BUDGET]
    assert len(add_forecast(kept, forecast)["forecasts"]) == 2


def write(folder: Path, frame: pd.DataFrame) -> str:
    frame.to_csv(folder / "table.csv", index=False)
    return str(folder)


def test_the_command_writes_and_prints(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", write(tmp_path, frame), "1e20"]) == 0
    kept = json.loads((tmp_path / "forecast.json").read_text())["forecasts"]
    assert kept[0]["budget"] == NEXT_BUDGET
    said = capsys.readouterr()
    assert "fid              diffusion" in said.out
    assert "commit it before training" in said.err


@pytest.mark.parametrize(
    ("make", "budget", "said"),
    [
        (lambda frame: frame, "1e17", "a forecast is made before anything is trained"),
        (
            lambda frame: frame[frame["flops_budget"] < 1e18],
            "1e20",
            "nothing to forecast from: validation_loss of diffusion: no exponent",
        ),
        (lambda frame: frame, "soon", "BUDGET must be a number"),
    ],
    ids=["trained", "no-fits", "no-number"],
)
def test_refusals_are_one_line(
    make, budget: str, said: str, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, make(frame))
    assert main(["forecast", folder, budget]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert said in errors[0]
    assert not (tmp_path / "forecast.json").exists()


def test_a_run_that_has_begun_is_too_late(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table does not know a run that is being trained; its folder does."""
    planned = frame.iloc[[-1]].assign(run_id="begun", flops_budget=NEXT_BUDGET, status="missing", split=None)
    folder = write(tmp_path, pd.concat([frame, planned]))
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    (tmp_path / "runs" / "begun" / "run.json").write_text('{"status": "training"}')
    assert main(["forecast", folder, "1e20"]) == 2
    assert "begun has begun" in capsys.readouterr().err
