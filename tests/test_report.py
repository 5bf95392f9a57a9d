"""From table to verdict on tables with known laws: fits and claims."""

import numpy as np
import pytest
import synthetic

from bench.analysis.claims import summary
from bench.analysis.comparison import Analysis, analyse

BUDGETS = np.logspace(17, 19.5, 6)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(synthetic.table(BUDGETS), num_draws=300)


def test_exponents_and_offsets_are_recovered(analysis: Analysis) -> None:
    """The best of five sizes lies a little above the true frontier's constant, not its exponent."""
    for method, (offset, _, exponent) in synthetic.LAWS.items():
        fit = analysis.fits("fid")[method]
        assert fit.exponent.low <= exponent <= fit.exponent.high
        assert fit.offset.low <= 1.02 * offset
        assert fit.offset.high >= 0.98 * offset


def test_surfaces_are_fitted_where_the_grid_allows(analysis: Analysis) -> None:
    for fit in analysis.surfaces("fid").values():
        assert fit.law is not None
        assert 0 < fit.allocation.low < fit.allocation.high < 1
    few = analyse(synthetic.table(BUDGETS, num_sizes=2), num_draws=50)
    assert all("no surface" in fit.missing for fit in few.surfaces("fid").values())


@pytest.fixture(scope="module")
def crossing(analysis: Analysis) -> np.ndarray:
    """Quantiles (3,) over the true place, where diffusion overtakes next-token: 0.5 + 20 x^-.5 = 1 + 6 x^-.25, x = C / 1e17."""
    x = np.logspace(0, 4, 100_000)
    place = 1e17 * x[np.argmin(np.abs(0.5 + 20 * x**-0.5 - 1 - 6 * x**-0.25))]
    found = next(c for c in analysis.crossings("fid") if {c.first, c.second} == {"diffusion", "next-token"})
    assert found.quantiles is not None
    return np.array(found.quantiles) / place


def test_the_crossing_of_two_methods_is_found(crossing: np.ndarray) -> None:
    assert crossing[1] == pytest.approx(1, rel=0.15)


def test_the_crossings_interval_holds_the_truth(crossing: np.ndarray) -> None:
    assert crossing[0] <= 1 <= crossing[2]


def test_isoflop_minima_follow_the_best_size(analysis: Analysis) -> None:
    for minima in analysis.minima("fid").values():
        assert len(minima) == len(BUDGETS)
        for found in minima:
            assert found.num_params == pytest.approx(1e6 * np.sqrt(found.budget / 1e17), rel=0.15)


def test_the_default_ladder_gives_a_sentence_and_no_exponent() -> None:
    found = analyse(synthetic.table(np.logspace(11, 12, 3), num_sizes=2, num_seeds=1))
    assert all(fit.law is None for fit in found.fits("fid").values())
    assert "no exponent: a fit needs 6 budgets (there are 3)" in summary(found)
