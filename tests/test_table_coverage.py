"""Whole simulated tables, from rows to intervals and tests: sizes are chosen among a grid by noisy validation rows, noise changes
with the budget, and runs of one trunk share it."""

from collections import Counter

import numpy as np
import pytest
import synthetic
from synthetic import BEST_SIZE, BUDGETS, LAWS, TRAINED
from test_coverage import check

from bench.analysis.comparison import Analysis, analyse
from bench.analysis.effects import advantage, catches_up
from bench.analysis.forecast import predict
from bench.analysis.metrics import METRICS
from bench.analysis.welch import ERROR_RATE

NOISE = {
    "0.05": np.full(6, 0.05),
    "rising from .03 to .15": np.geomspace(0.03, 0.15, 6),
    "falling from .15 to .03": np.geomspace(0.15, 0.03, 6),
}


def meeting_point() -> float:
    """Where diffusion overtakes next-token: 0.5 + 20 x^-.5 = 1 + 6 x^-.25, x = C / 1e17."""
    x = np.logspace(0, 4, 100_000)
    curves = [LAWS[m][0] + LAWS[m][1] * x ** -LAWS[m][2] for m in TRAINED]
    return 1e17 * float(x[np.argmin(np.abs(curves[0] - curves[1]))])


def count(analysis: Analysis, seed: int, deviation: float, hits: Counter, tried: Counter) -> None:
    """What of the table's intervals holds the truth."""

    def note(name: str, held: bool) -> None:
        hits[name] += held
        tried[name] += 1

    top, budget = BUDGETS[-1], 1e20
    for method in TRAINED:
        offset, scale, exponent = LAWS[method]
        fit = analysis.fits("fid")[method]
        note("exponent", fit.exponent.holds(exponent))
        new = deviation * np.random.default_rng([seed, 12]).standard_normal()
        truth = offset + scale * (budget / 1e17) ** -exponent
        note("forecast", predict(fit, METRICS["fid"], budget).holds(truth * np.exp(new)))
        best = BEST_SIZE[0] * (top / 1e17) ** BEST_SIZE[1]
        for path, name, at_top in zip(analysis.paths("fid")[method], ("N*(C)", "D*(C)"), (best, top / 6 / best), strict=True):
            assert path.exponent is not None
            note(f"exponent of {name}", path.exponent.holds(0.5))
            note(f"{name} at the top", path.at(top).holds(at_top))
        for minimum in analysis.minima("fid")[method]:
            if minimum.interval is not None:
                note("minimum", minimum.interval.holds(BEST_SIZE[0] * (minimum.budget / 1e17) ** BEST_SIZE[1]))
    quantiles = analysis.crossings("fid")[0].quantiles
    note("crossing", quantiles is not None and quantiles[0] <= meeting_point() <= quantiles[2])


@pytest.mark.parametrize("num", [3, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("noise", NOISE)
def test_intervals_of_tables(noise: str, num: int) -> None:
    hits, tried = Counter[str](), Counter[str]()
    for seed in range(num):
        table = synthetic.trained(seed, NOISE[noise])
        count(analyse(table, num_draws=1000), seed, NOISE[noise][-1], hits, tried)
    for name in tried:
        check(f"{name}, noise {noise}", hits[name], tried[name])


@pytest.mark.parametrize("num", [5, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("noise", NOISE)
def test_equal_methods_seldom_differ(noise: str, num: int) -> None:
    """Two methods of one law: tests at 5 % find a difference at a budget, or in the trend, in at most 6 % of tables."""
    right, tried = Counter[str](), Counter[str]()
    laws = dict.fromkeys(TRAINED, LAWS["next-token"])
    for seed in range(num):
        analysis = analyse(synthetic.trained(seed, NOISE[noise], laws=laws), num_draws=2)
        estimates = [("at a budget", advantage("fid", index)) for index in range(len(BUDGETS))]
        for name, estimate in (*estimates, ("trend", catches_up)):
            found = estimate(analysis, *TRAINED).found
            assert found is not None
            right[name] += found.p_value >= ERROR_RATE
            tried[name] += 1
    for name in tried:
        check(f"no difference {name}, noise {noise}", right[name], tried[name], 0.94)
