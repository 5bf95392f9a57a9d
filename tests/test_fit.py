"""Fits against known answers: published surfaces, synthetic laws with noise, parabolas, crossings, and intervals that cover."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.analysis.crossings import crossing, isoflop_minimum
from bench.analysis.laws import Law, fit_law
from bench.analysis.scaling import ScalingFit, fit_scaling, lacking, seed_noise
from bench.analysis.surfaces import fit_surface

BUDGETS = np.logspace(17, 19.5, 6)
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


def simulate(exponent: float, floor: float, noise: float, seed: int, scale: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Three seeds at six budgets over 2.5 decades."""
    compute = np.repeat(BUDGETS, 3)
    values = floor + scale * (compute / 1e17) ** -exponent
    return compute, values * np.exp(noise * np.random.default_rng(seed).standard_normal(len(values)))


@pytest.mark.parametrize(
    ("exponent", "floor", "noise"), [(0.25, 0.2, 0.01), (0.25, 0.2, 0.04), (0.5, 0.05, 0.02), (0.25, 0.0, 0.02)]
)
def test_exponent_intervals_cover_the_truth(exponent: float, floor: float, noise: float) -> None:
    """The 95 % interval holds the true exponent in at least 90 of 100 sweeps."""
    covered = 0
    for seed in range(100):
        found = fit_scaling("a", *simulate(exponent, floor, noise, seed), seed=seed, num_draws=400)
        covered += found.exponent.low <= exponent <= found.exponent.high
    assert covered >= 90


def test_pure_laws_are_told_from_those_with_an_offset() -> None:
    """Without a floor AICc prefers the pure law in most sweeps; with one it does not."""
    prefers = [fit_scaling("a", *simulate(0.25, 0.0, 0.02, s), num_draws=2).prefers_offset for s in range(40)]
    assert sum(prefers) <= 8
    prefers = [fit_scaling("a", *simulate(0.25, 0.2, 0.02, s), num_draws=2).prefers_offset for s in range(40)]
    assert sum(prefers) >= 32


def test_held_out_error_and_seed_noise() -> None:
    found = fit_scaling("a", *simulate(0.3, 0.1, 0.02, 0), num_draws=2)
    assert found.held_out_error < 0.1
    assert found.seed_noise == pytest.approx(0.02, rel=0.5)
    assert seed_noise(np.array([1.0, 1.0, 2.0]), np.array([0.0, 2.0, 5.0])) == pytest.approx(2**0.5)


@pytest.mark.parametrize("place", [18.25, 18.75])
def test_crossing_intervals_cover_the_truth(place: float) -> None:
    """Two pure laws that meet at 10^place: the interval holds it in at least 90 of 100 sweeps; the median is near."""
    covered, medians = 0, []
    for seed in range(100):
        fits = []
        for index, exponent in enumerate((0.15, 0.4)):
            compute = np.repeat(BUDGETS, 3)
            noise = np.exp(0.01 * np.random.default_rng([seed, index]).standard_normal(18))
            values = (compute / 10**place) ** -exponent * noise
            fits.append(fit_scaling(str(index), compute, values, seed=seed, num_draws=400))
        found = crossing(*fits)
        assert found.quantiles is not None
        low, middle, high = np.log10(found.quantiles)
        covered += low <= place <= high
        medians.append(middle)
        assert found.inside
    assert covered >= 90
    assert np.median(medians) == pytest.approx(place, abs=0.05)


def test_laws_that_do_not_meet_say_so() -> None:
    a = fit_scaling("a", *simulate(0.3, 0.0, 0.01, 0), num_draws=50)
    b = fit_scaling("b", *simulate(0.3, 0.0, 0.01, 1, scale=2.5), num_draws=50)
    assert crossing(a, b).share_without == 1
    assert "none in range (100% of bootstrap draws have no crossing)" in str(crossing(a, b))


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
    found = fit_scaling("a", compute, np.ones(len(compute)))
    assert found.law is None
    assert re.search(said, lacking(compute))
    assert found.missing == lacking(compute)


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
    assert "4 sizes" in isoflop_minimum(1e18, np.exp(x[:3]), np.exp(x[:3])).missing


def test_surface_exponents_cover_the_truth() -> None:
    """offset + A / N^.35 + B / D^.45 on 6 sizes x 6 budgets x 3 seeds: both exponents and the allocation, in 90 of 100 sweeps."""
    sizes, budgets = np.logspace(6.5, 9, 6), np.logspace(17, 20, 6)
    num_params, compute = (v.ravel().repeat(3) for v in np.meshgrid(sizes, budgets))
    images = compute / (6 * num_params * 256)
    clean = 0.3 + (num_params / 3e5) ** -0.35 + (images / 1e3) ** -0.45
    hits = np.zeros(3)
    for seed in range(100):
        noise = np.exp(0.02 * np.random.default_rng(seed).standard_normal(len(clean)))
        found = fit_surface("a", num_params, images, clean * noise, seed=seed, num_draws=200)
        intervals = (found.interval(lambda p: p[:, 2]), found.interval(lambda p: p[:, 3]), found.allocation)
        hits += [i.low <= truth <= i.high for i, truth in zip(intervals, (0.35, 0.45, 0.45 / 0.8), strict=True)]
    assert (hits >= 90).all(), hits


def test_surfaces_need_a_grid() -> None:
    found = fit_surface("a", np.repeat([1e6, 1e7], 9), np.tile([1e4, 1e5, 1e6], 6), np.ones(18))
    assert found.law is None
    assert "4 sizes" in found.missing


def test_values_that_are_not_positive_are_refused_or_dropped() -> None:
    with pytest.raises(ValueError, match="positive"):
        fit_law([BUDGETS], np.array([1.0, 2, 3, 4, 5, -1]), offset=False)
    with pytest.raises(ValueError, match="3 parameters"):
        fit_law([BUDGETS[:2]], np.ones(2), offset=True)
    compute, values = simulate(0.3, 0.0, 0.01, 0)
    assert isinstance(fit_scaling("a", np.append(compute, 1e17), np.append(values, np.nan), num_draws=2), ScalingFit)
