"""Fits against known answers: published surfaces, synthetic laws with noise, parabolas, crossings, and intervals that cover."""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import BUDGETS, seed_ladders, sweep

from bench.analysis.crossings import crossing
from bench.analysis.intervals import Interval
from bench.analysis.isoflop import isoflop_minimum, optimal_path
from bench.analysis.laws import LEAST_SQUARES, Law, fit_law
from bench.analysis.noise import residual_noise, seed_noise
from bench.analysis.scaling import fit_scaling, lacking, misfit, pooled_deviation
from bench.analysis.surfaces import SurfaceFit, fit_surface
from bench.report.tables import surface_row

CHINCHILLA = {"A": 477.826, "B": 2143.42, "E": 1.817218, "alpha": 0.347310, "beta": 0.367172}
"""Converged refit of the points extracted by Besiroglu et al. 2024 (Huber 1e-3 on logs, summed)."""
POINTS_HASH = "193478df4e90f040016431996c45682659306840ecdadf83cfb9cd5ca0aa1b30"


def surface(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    c = CHINCHILLA
    return c["E"] + c["A"] / n ** c["alpha"] + c["B"] / d ** c["beta"]


def check_surface(law: Law, rel: float) -> None:
    assert law.exponents == pytest.approx([CHINCHILLA["alpha"], CHINCHILLA["beta"]], rel=rel)
    assert law.offset is not None
    assert np.exp(law.offset) == pytest.approx(CHINCHILLA["E"], rel=rel)
    assert np.exp(law.intercepts) == pytest.approx([CHINCHILLA["A"], CHINCHILLA["B"]], rel=20 * rel)


def test_refit_of_the_chinchilla_points() -> None:
    """CHINCHILLA_POINTS names the reader's copy of svg_extracted_data.csv of epoch-research/analyzing-chinchilla."""
    path = os.environ.get("CHINCHILLA_POINTS", "")
    if not path:
        pytest.skip("CHINCHILLA_POINTS is not set; the same surface is refitted from its published constants instead")
    content = Path(path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == POINTS_HASH
    frame = pd.read_csv(path).dropna(subset=["loss"])
    kept = frame[frame["loss"] < sorted(frame["loss"])[-5]]
    assert len(kept) == 240
    n = kept["Model Size"].to_numpy(float)
    d = kept["Training FLOP"].to_numpy(float) / (6 * n)
    law = fit_law([n, d], kept["loss"].to_numpy(float), offset=True, num_starts=200)
    assert law.objective == pytest.approx(1.0182740178e-3, rel=1e-5)
    check_surface(law, 1e-3)


def test_refit_of_a_surface_from_the_published_constants() -> None:
    generator = np.random.default_rng(0)
    compute = 10 ** generator.uniform(18, 21.5, 240)
    n = np.sqrt(compute / 6 / 20) * 10 ** generator.uniform(-0.7, 0.7, 240)
    d = compute / (6 * n)
    check_surface(fit_law([n, d], surface(n, d), offset=True), 1e-3)


def test_optimal_allocation_of_a_symmetric_surface() -> None:
    """For alpha = beta = .31 and A = B = 400 the optimum has N = D = sqrt(C / 6), by symmetry."""
    generator = np.random.default_rng(1)
    n, d = 10 ** generator.uniform(7, 10, 300), 10 ** generator.uniform(9, 12, 300)
    law = fit_law([n, d], 1.5 + 400 / n**0.31 + 400 / d**0.31, offset=True)
    a, b = law.exponents
    (log_a, log_b), budget = law.intercepts, 1e24 / 6
    best = (a * np.exp(log_a) / (b * np.exp(log_b))) ** (1 / (a + b)) * budget ** (b / (a + b))
    assert best == pytest.approx(408_248_290_464, rel=1e-2)


@pytest.mark.parametrize("offset", [False, True])
def test_a_noiseless_law_is_recovered(offset: bool) -> None:
    values = 0.5 * offset + 3.0 * (BUDGETS / 1e17) ** -0.31
    law = fit_law([BUDGETS], values, offset=offset)
    assert law.exponents[0] == pytest.approx(0.31, rel=1e-4)
    assert law(BUDGETS) == pytest.approx(values, rel=1e-6)


def simulate(exponent: float, floor: float, noise: float, seed: int, scale: float = 0.25) -> tuple[np.ndarray, ...]:
    """Compute, values and seeds: three seeds at six budgets over 2.5 decades."""
    return sweep(np.random.default_rng(seed), (floor, scale, exponent), np.full(6, noise))


def test_pure_laws_are_told_from_those_with_an_offset() -> None:
    """Without a floor AICc prefers the pure law in most sweeps; with one it does not."""
    prefers = [fit_scaling("a", *simulate(0.25, 0.0, 0.02, s), num_draws=2).prefers_offset for s in range(20)]
    assert sum(prefers) <= 4
    prefers = [fit_scaling("a", *simulate(0.25, 0.2, 0.02, s), num_draws=2).prefers_offset for s in range(20)]
    assert sum(prefers) >= 16


def test_refits_find_the_offset_that_the_fit_lost() -> None:
    """Noise that rises hides the floor: the best fit has none, and yet it lies within the interval of its draws."""
    found = fit_scaling("a", *sweep(np.random.default_rng([0, 7]), (0.2, 0.25, 0.25), np.geomspace(0.02, 0.5, 6)), num_draws=400)
    assert found.offset.value < 1e-3
    assert found.offset.holds(0.2)
    assert found.exponent.holds(0.25)


def test_an_offset_may_lie_above_a_mean_that_is_low_by_chance() -> None:
    values = 0.2 + 0.25 * (BUDGETS / 1e17) ** -0.5
    values[-1] = 0.15
    law = fit_law([BUDGETS], values, offset=True, delta=LEAST_SQUARES, weights=np.array([1e3] * 5 + [1e-3]))
    assert law.offset is not None
    assert np.exp(law.offset) == pytest.approx(0.2, rel=1e-3)


def test_methods_do_not_share_their_draws() -> None:
    """Equal draws would cancel where two methods meet."""
    a, b = (fit_scaling(name, *simulate(0.3, 0.0, 0.1, 0), num_draws=400) for name in ("a", "b"))
    assert abs(np.corrcoef(a.draws[:, 1], b.draws[:, 1])[0, 1]) < 0.2
    assert crossing(a, b).state == "undetermined"


def test_means_farther_from_their_law_than_seeds_explain_widen_it() -> None:
    """Six means at three standard errors from a law of three parameters: the root of 6 x 9 / 3."""
    assert misfit(Law(np.zeros(1), np.zeros(1), 0.0, objective=0.5 * 6 * 9), 6) == pytest.approx(18**0.5)
    assert misfit(Law(np.zeros(1), np.zeros(1), 0.0, objective=0.1), 6) == 1


def test_held_out_error_and_seed_noise() -> None:
    found = fit_scaling("a", *simulate(0.3, 0.1, 0.02, 0), num_draws=2)
    assert found.held_out_error < 0.1
    assert found.seed_noise == pytest.approx(0.02, rel=0.5)
    assert pooled_deviation(np.array([0.0, 2.0, 5.0]), np.array([0, 0, 1])) == pytest.approx(2**0.5)


def test_laws_that_do_not_meet_say_so() -> None:
    a = fit_scaling("a", *simulate(0.3, 0.0, 0.01, 0), num_draws=50)
    b = fit_scaling("b", *simulate(0.3, 0.0, 0.01, 1, scale=2.5), num_draws=50)
    found = crossing(a, b)
    assert (found.share_without, found.state) == (1, "no crossing")
    assert "no crossing between 1e16 and 3.16e20 FLOPs (0% of draws have one)" in str(found)


def test_laws_that_may_meet_are_undetermined() -> None:
    """Two parallel laws with much noise: some draws cross, others do not, and neither answer is given."""
    fits = [fit_scaling("a", *simulate(0.3, 0.0, 0.1, seed, scale), num_draws=200) for seed, scale in ((0, 0.25), (1, 0.35))]
    found = crossing(*fits)
    assert 0.05 < found.share_without < 0.95
    assert found.state == "undetermined"
    assert "undetermined" in str(found)


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        ([], "no finished run"),
        ([1e17] * 3, r"6 budgets \(there are 1\)"),
        (np.repeat(BUDGETS, 2), r"3 seeds at every budget \(the fewest are 2\)"),
        (np.repeat(np.logspace(17, 18, 6), 3), r"2.5 decades of budgets \(there are 1\)"),
    ],
)
def test_too_little_data_gives_a_sentence(compute: list[float], said: str) -> None:
    compute = np.asarray(compute, dtype=float)
    found = fit_scaling("a", compute, np.ones(len(compute)), np.arange(len(compute)))
    assert found.law is None
    assert re.search(said, lacking(compute))
    assert found.missing == lacking(compute)


def test_budgets_with_few_seeds_are_set_aside_and_named() -> None:
    """The fit is that of the others; where these allow none, all are counted and nothing is fitted."""
    compute, values, seeds = simulate(0.25, 0.1, 0.02, 0)
    whole = fit_scaling("m", compute, values, seeds, num_draws=20)
    assert (whole.set_aside, whole.missing) == ("", "")
    above = (np.append(compute, [1e21, 1e21]), np.append(values, [5.0, 6.0]), np.append(seeds, [0, 1]))
    found = fit_scaling("m", *above, num_draws=20)
    assert found.set_aside == "the fit leaves out budgets with fewer than 3 seeds at the best size: 1e21"
    assert found.law == whole.law
    assert np.array_equal(found.draws, whole.draws)
    few = compute > compute.min()
    refused = fit_scaling("m", np.append(compute[few], 1e21), np.append(values[few], 5.0), np.append(seeds[few], 0))
    assert refused.law is None
    assert refused.set_aside == ""
    assert "3 seeds at every budget (the fewest are 1)" in refused.missing


def test_the_path_of_the_best_size_is_recovered() -> None:
    """Six sizes at each of four budgets, the best growing as C^.5, without noise to speak of."""
    budgets, shifts = np.logspace(17, 20, 4), np.linspace(-1.5, 1.5, 6)
    compute, shift = (v.ravel() for v in np.meshgrid(budgets, shifts))
    sizes = 1e6 * np.sqrt(compute / 1e17) * np.exp(shift)
    values = (compute / 1e17) ** -0.2 * np.exp(0.1 * shift**2) * np.exp(1e-4 * np.random.default_rng(0).standard_normal(24))
    found = optimal_path("num_params", compute, sizes, values, np.arange(24))
    assert found.exponent is not None
    assert found.exponent.value == pytest.approx(0.5, abs=0.01)
    assert found.at(1e19).value == pytest.approx(1e7, rel=0.02)
    assert "3 budgets" in optimal_path("num_params", compute[:2], sizes[:2], values[:2], np.arange(2)).missing


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda x: -((x - 3) ** 2), "opens downward"),
        (lambda x: (x - 0.2) ** 2, "edge"),
        (lambda x: (x - 9) ** 2, "edge"),
    ],
)
def test_parabolas_without_a_minimum_are_refused(values, said: str) -> None:
    x = np.arange(1.0, 6.0)
    found = isoflop_minimum(1e18, np.exp(x), np.exp(values(x)))
    assert said in found.missing
    assert np.isnan(found.num_params)


def test_a_parabola_finds_its_minimum() -> None:
    x = np.arange(1.0, 6.0)
    found = isoflop_minimum(1e18, np.exp(x), np.exp(0.3 * (x - 2.7) ** 2 + 1.1))
    assert found.num_params == pytest.approx(np.exp(2.7))
    assert found.value == pytest.approx(np.exp(1.1))
    assert found.interval is not None
    assert found.interval.high / found.interval.low == pytest.approx(1, abs=1e-3)
    assert "4 sizes" in isoflop_minimum(1e18, np.exp(x[:3]), np.exp(x[:3])).missing


def test_surfaces_need_a_grid() -> None:
    size, budget = np.repeat([1e6, 1e7], 9), np.tile([1e4, 1e5, 1e6], 6)
    found = fit_surface("a", budget, size, budget / size, np.ones(18), np.arange(18.0))
    assert found.law is None
    assert "4 sizes" in found.missing


def test_surfaces_group_runs_whose_images_vary() -> None:
    """A loss with random shapes sees other images with every seed; its runs are still replicates of one cell."""
    sizes, budgets = np.logspace(6.5, 9, 5), np.logspace(17, 20, 5)
    size, budget = (v.ravel().repeat(3) for v in np.meshgrid(sizes, budgets))
    generator = np.random.default_rng(0)
    images = budget / (6 * size * 256) * generator.uniform(0.95, 1.05, len(size))
    values = 0.3 + (size / 3e5) ** -0.35 + (images / 1e3) ** -0.45
    values *= np.exp(0.02 * generator.standard_normal(len(size)))
    found = fit_surface("mar", budget, size, images, values, np.tile(np.arange(3.0), 25), num_draws=100)
    assert not found.missing
    assert not found.set_aside
    assert found.allocation.low < 0.45 / 0.8 < found.allocation.high
    one = (np.append(budget, 1e21), np.append(size, 1e9), np.append(images, 1e10), np.append(values, 9.0))
    without = fit_surface("mar", *one, np.append(np.tile(np.arange(3.0), 25), 0), num_draws=100)
    assert without.set_aside == "the fit leaves out runs of sizes with fewer than 3 seeds at a budget: 1"
    assert np.array_equal(without.draws, found.draws)


def test_a_metric_that_hardly_moved_has_no_surface() -> None:
    """As of a method that follows no prompt but in one cell."""
    size, budget = (v.ravel().repeat(3) for v in np.meshgrid(np.logspace(6.5, 9, 4), np.logspace(17, 20, 4)))
    values = np.where(budget < 1e20, 1.0, 0.99)
    found = fit_surface("mar", budget, size, budget / size, values, np.tile(np.arange(3.0), 16), num_draws=20)
    assert found.missing == "no surface: 16 cells have only 2 different values"


def test_an_allocation_is_unknown_where_a_draw_has_no_exponent() -> None:
    law = Law(intercepts=np.zeros(2), exponents=np.array([0.2, 0.3]), offset=-1.0, objective=0.0)
    draws = np.tile(law.parameters, (20, 1))
    known = SurfaceFit(method="mar", law=law, draws=draws)
    assert known.allocation.value == pytest.approx(0.6)
    draws[3, 2:4] = 0.0
    unknown = replace(known, draws=draws)
    assert unknown.allocation is None
    assert surface_row("prompt_accuracy", unknown)[-1] == "unknown: a draw has no exponent"


def test_values_that_are_not_positive_are_refused_or_dropped() -> None:
    with pytest.raises(ValueError, match="positive"):
        fit_law([BUDGETS], np.array([1.0, 2, 3, 4, 5, -1]), offset=False)
    with pytest.raises(ValueError, match="3 parameters"):
        fit_law([BUDGETS[:2]], np.ones(2), offset=True)
    compute, values, seeds = simulate(0.3, 0.0, 0.01, 0)
    missing = fit_scaling("a", np.append(compute, 1e17), np.append(values, np.nan), np.append(seeds, 3), num_draws=2)
    assert missing.law is not None
    values[-1] = -0.01
    refused = fit_scaling("a", compute, values, seeds)
    assert refused.law is None
    assert "1 of 18 values are at or below 0" in refused.missing
    assert "1 of 18" in isoflop_minimum(1e18, np.repeat(np.arange(1.0, 7), 3), values).missing


def test_a_measured_floor_is_a_prior_on_the_offset() -> None:
    """With little data near the floor, the law that knows it has the narrower exponent, around the truth; both are kept."""
    floor = Interval(0.19, 0.2, 0.21)
    found = fit_scaling("a", *simulate(0.25, 0.2, 0.1, 0), floor=floor, num_draws=400)
    assert found.floored is not None
    assert found.floored_exponent is not None
    assert np.exp(found.floored.offset) == pytest.approx(0.2, rel=0.1)
    assert found.floored_exponent.holds(0.25)
    assert found.floored_exponent.high - found.floored_exponent.low < found.exponent.high - found.exponent.low
    free = fit_scaling("a", *simulate(0.25, 0.2, 0.1, 0), num_draws=400)
    assert free.floored is None
    assert free.exponent.value == found.exponent.value


def test_rungs_of_one_trunk_are_seen_to_correlate() -> None:
    """Five seeds whose rungs share nearly all their noise, and five whose rungs share none."""
    found = []
    for correlation in (0.0, 0.95):
        noise = seed_ladders(np.random.default_rng(0), np.full(6, 0.1), 5, correlation)
        compute, cells, seeds = np.repeat(BUDGETS, 5), np.repeat(np.arange(6), 5), np.tile(np.arange(5.0), 6)
        found.append(seed_noise(compute, noise.ravel(), cells, seeds).correlation)
    assert found[0] < 0.4
    assert found[1] > 0.75


def test_runs_that_share_nothing_are_solved_apart_to_the_same_noise() -> None:
    """Three sizes, some of whose runs are missing, against all runs in one linear model with a coefficient for each cell."""
    generator = np.random.default_rng(0)
    size, budget, seed = (v.ravel() for v in np.meshgrid(np.arange(3), np.arange(5), np.arange(3), indexing="ij"))
    kept = generator.random(len(size)) < 0.85
    size, budget, seed = size[kept], budget[kept], seed[kept]
    cells = np.unique(5 * size + budget, return_inverse=True)[1]
    compute, ladders, values = BUDGETS[budget], 3 * size + seed, 0.1 * generator.standard_normal(len(size)) + budget
    apart = seed_noise(compute, values, cells, ladders)
    together = residual_noise(compute, values, (cells[:, None] == np.arange(cells.max() + 1)).astype(float), ladders)
    np.testing.assert_allclose(apart.squares, together.squares, rtol=1e-9)
    np.testing.assert_allclose(apart.odds, together.odds, rtol=1e-9, atol=1e-15)
    drawn = [noise.draw(np.random.default_rng(1), 50).runs(np.random.default_rng(2)) for noise in (apart, together)]
    np.testing.assert_allclose(*drawn, rtol=1e-9)


def test_coefficients_of_a_line_have_students_interval() -> None:
    from scipy.stats import linregress
    from scipy.stats import t as student

    x = np.arange(8.0)
    y = 0.3 * x + np.random.default_rng(0).standard_normal(8)
    noise = residual_noise(np.full(8, 1e17), y, np.stack([np.ones(8), x], axis=1), np.arange(8))
    generator = np.random.default_rng(0)
    drawn = noise.draw(generator, 40_000).coefficients(generator)
    known = linregress(x, y)
    for values, middle, error in (
        (drawn[:, 0], known.intercept, known.intercept_stderr),
        (drawn[:, 1], known.slope, known.stderr),
    ):
        reach = student.ppf(0.975, 6) * error
        assert np.percentile(values, [2.5, 97.5]) == pytest.approx([middle - reach, middle + reach], abs=0.03 * reach)


def test_noise_that_changes_with_the_budget_is_followed() -> None:
    compute, values, seeds = sweep(np.random.default_rng(0), (0.0, 1.0, 0.0), np.geomspace(0.5, 0.02, 6))
    noise = seed_noise(compute, np.log(values), np.repeat(np.arange(6), 3), seeds)
    low, high = noise.deviation(BUDGETS[[0, -1]])
    assert 0.2 < low < 1.2
    assert 0.008 < high < 0.05


def test_a_single_budget_gives_students_interval() -> None:
    """Without neighbors the drawn means are those of Student's t: the 95 % interval of three values, by SciPy."""
    from scipy.stats import ttest_1samp

    values = np.array([0.1, -0.2, 0.3])
    noise = seed_noise(np.full(3, 1e17), values, np.zeros(3, dtype=int), np.arange(3.0))
    generator = np.random.default_rng(0)
    drawn = values.mean() + noise.draw(generator, 40_000).runs(generator).mean(1)
    known = ttest_1samp(values, 0).confidence_interval()
    assert np.percentile(drawn, [2.5, 97.5]) == pytest.approx([known.low, known.high], rel=0.05)
