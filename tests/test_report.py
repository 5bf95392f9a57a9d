"""From table to verdict on tables with known laws: fits and claims."""

import numpy as np
import pytest
import synthetic

from bench.analysis.claims import judge, summary
from bench.analysis.comparison import Analysis, analyse, difference

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


def test_the_crossing_of_two_methods_is_found(analysis: Analysis) -> None:
    """Diffusion overtakes next-token where 0.5 + 20 x^-.5 = 1 + 6 x^-.25, x = C / 1e17."""
    x = np.logspace(0, 4, 100_000)
    place = 1e17 * x[np.argmin(np.abs(0.5 + 20 * x**-0.5 - 1 - 6 * x**-0.25))]
    found = next(c for c in analysis.crossings("fid") if {c.first, c.second} == {"diffusion", "next-token"})
    assert found.quantiles is not None
    assert found.quantiles[0] <= place <= found.quantiles[2]


def test_isoflop_minima_follow_the_best_size(analysis: Analysis) -> None:
    for minima in analysis.minima("fid").values():
        assert len(minima) == len(BUDGETS)
        for found in minima:
            assert found.num_params == pytest.approx(1e6 * np.sqrt(found.budget / 1e17), rel=0.15)


def test_claims_are_judged_as_the_table_was_made(analysis: Analysis) -> None:
    verdicts = {claim.text: claim for claim in judge(analysis)}
    for text, verdict in {
        "Token prediction follows prompts better than diffusion": "supported",
        "Next-token prediction leads the token methods on prompt following": "supported",
        "At low compute next-token prediction has the best image quality": "supported",
        "Diffusion catches up with next-token prediction on FID as compute grows": "supported",
        "Next-token prediction needs the least compute per sample": "supported",
        "Diffusion has the lowest latency": "supported",
        "Next-token prediction has the highest throughput": "supported",
        "Averaging the weights helps diffusion most": "supported",
        "Continuous tokens with Diffusion Loss beat cross-entropy on codes": "supported",
        "Random order beats raster order under causal attention": "not tested",
    }.items():
        assert verdicts[text].verdict == verdict, verdicts[text]
        assert verdicts[text].evidence


def test_the_same_claims_contradicted_and_undecided() -> None:
    frame = synthetic.table(BUDGETS)
    frame["method"] = frame["method"].replace({"diffusion": "next-token", "next-token": "diffusion"})
    verdicts = {claim.text: claim.verdict for claim in judge(analyse(frame))}
    assert verdicts["Diffusion catches up with next-token prediction on FID as compute grows"] == "contradicted"
    assert verdicts["Diffusion has the lowest latency"] == "contradicted"
    assert verdicts["Averaging the weights helps diffusion most"] != "supported"
    loud = judge(analyse(synthetic.table(BUDGETS, noise=1.0)))
    assert {c.verdict for c in loud if "prompt following" in c.text} == {"undecided"}
    single = judge(analyse(synthetic.table(BUDGETS, num_seeds=1)))
    assert all(c.verdict in ("undecided", "not tested") or "counted" in c.evidence or "runs" in c.evidence for c in single)


def test_difference_is_the_pooled_t_interval() -> None:
    """Against SciPy's own two-sample interval for two groups."""
    from scipy.stats import ttest_ind

    a, b = np.array([1.0, 1.3, 1.1]), np.array([0.4, 0.7])
    found = difference({"a": a, "b": b}, "a", "b", ratio=False)
    reference = ttest_ind(a, b).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))


def test_the_default_ladder_gives_a_sentence_and_no_exponent() -> None:
    found = analyse(synthetic.table(np.logspace(11, 12, 3), num_sizes=2, num_seeds=1))
    assert all(fit.law is None for fit in found.fits("fid").values())
    assert "no exponent: a fit needs 6 budgets (there are 3)" in summary(found)
