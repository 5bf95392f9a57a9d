"""A sweep over the committed one of its experiment: intervals that hold as often as they say, and deviations by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import synthetic
from scipy.stats import binom

from bench.analysis.comparison import Analysis, analyse
from bench.analysis.metrics import METRICS
from bench.analysis.reproduction import reproduced, reproduction_summary, seed_deviation
from bench.report.page import write_report
from bench.results.table import load_reference

BUDGETS = np.array([1e18, 1e19])


def sweep(seed: int, num_seeds: int = 3, num_sizes: int = 1) -> Analysis:
    """Seeds alone make the noise of FID here: its error at one seed is 0."""
    frame = synthetic.table(BUDGETS, num_sizes=num_sizes, num_seeds=num_seeds, raw=False, seed=seed)
    return analyse(frame.assign(fid_se=0.0), num_draws=60)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_prediction_intervals_hold_new_sweeps(num_seeds: int) -> None:
    """Pairs of sweeps with other seeds: 720 intervals, about 95 % of which hold."""
    held, of_fid = [], []
    for seed in range(30):
        found = reproduced(sweep(1000 + seed, num_seeds), sweep(seed))
        assert len(found) == 3 * 4 * 2
        held += [each.inside for each in found]
        of_fid += [each.inside for each in found if each.metric == "fid"]
    print(f"{np.mean(held):.3f} of {len(held)}, of FID {np.mean(of_fid):.3f}")
    assert np.mean(held) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / len(held))
    assert binom.ppf(0.001, len(of_fid), 0.95) <= sum(of_fid) <= binom.ppf(0.9995, len(of_fid), 0.95)


def test_the_size_is_the_references_own() -> None:
    """A sweep that found another size best is compared where the reference stands."""
    reference, mine = sweep(0, num_sizes=3), sweep(1, num_sizes=3)
    widths = reference.best_sizes("fid").set_index(["method", "flops_budget"])["width"]
    for each in reproduced(mine, reference):
        if each.metric == "fid":
            rows = mine.rows("fid")
            cell = rows[(rows["method"] == each.method) & (rows["flops_budget"] == each.budget)]
            cell = cell[cell["width"] == widths[each.method, each.budget]]
            assert each.value == pytest.approx(np.exp(np.log(cell["fid"]).mean()))


def test_a_deviation_is_named() -> None:
    mine = synthetic.table(BUDGETS, num_sizes=1, raw=False, seed=7)
    assert reproduction_summary(reproduced(analyse(mine), analyse(mine))) == (
        "this sweep reproduces the reference: 24 of 24 values lie in their 95 % prediction intervals"
    )
    changed = mine.copy()
    changed.loc[(changed["method"] == "mar") & (changed["flops_budget"] == 1e19), "fid"] *= 2
    said = reproduction_summary(reproduced(analyse(changed), analyse(mine)))
    assert said.startswith(
        "23 of 24 values lie in their 95 % prediction intervals (1 outside are expected by chance); deviations: "
    )
    assert "FID of mar at 1e19 FLOPs is" in said


def test_what_cannot_be_compared_is_left_out() -> None:
    reference = sweep(0)
    other = analyse(synthetic.table(BUDGETS, num_sizes=1, raw=False, seed=1).assign(protocol="another"))
    assert reproduced(other, reference) == []
    assert reproduced(sweep(1), sweep(0, num_seeds=1)) == []
    rows = reference.rows("fid")
    assert seed_deviation(METRICS["fid"], rows[rows["seed"] == 0]) is None


def test_the_report_shows_it(tmp_path: Path) -> None:
    for name, seed in (("study-reference", 0), ("study-1e19", 1)):
        frame = synthetic.table(BUDGETS[1:], num_sizes=1, raw=False, seed=seed)
        results = synthetic.write(tmp_path / name, frame[frame["method"] == "mar"])
        results.experiment.write_text(json.dumps({"name": "study", "budget": 1e19}))
    write_report(results)
    page = results.report.read_text()
    assert "Against results/study-reference: " in page
    assert "of 3 values lie in their 95 % prediction intervals" in page
    for figure in ("fid-reproduction", "prompt-accuracy-reproduction", "validation-loss-reproduction"):
        assert f'id="{figure}"' in page
        assert (results.figures / f"{figure}.svg").exists()
    shutil.rmtree(tmp_path / "study-reference")
    assert load_reference(results) is None


def test_a_reference_is_not_compared_with_itself(tmp_path: Path) -> None:
    results = synthetic.write(tmp_path / "study-reference", synthetic.table(BUDGETS, num_sizes=1, raw=False))
    results.experiment.write_text(json.dumps({"name": "study", "budget": 1e19}))
    assert load_reference(results) is None
