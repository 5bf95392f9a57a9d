"""Comparing methods by their seeds: the level of the test by simulation, possible scales, sizes chosen on validation rows."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy.special import expit
from scipy.stats import binom, ttest_ind
from scipy.stats import t as student

from bench.analysis.comparison import analyse
from bench.analysis.metrics import METRICS
from bench.analysis.welch import Sample, degrees_of_freedom, difference, holm, mean_interval
from bench.report.scaling_figures import quality_against_training

RATIOS = (1, 2, 5, 10, 20, 50)
NUM_COMPARISONS = 5000


def error_rate(generator: np.random.Generator, n: int, m: int, ratio: float) -> int:
    """How many of NUM_COMPARISONS tests at 5 % find a difference between equal means."""
    a = generator.standard_normal((NUM_COMPARISONS, n)) * np.sqrt(ratio)
    b = generator.standard_normal((NUM_COMPARISONS, m))
    of_a, of_b = a.var(1, ddof=1) / n, b.var(1, ddof=1) / m
    freedom = degrees_of_freedom(of_a, of_b, n, m)
    return int((np.abs(a.mean(1) - b.mean(1)) > student.ppf(0.975, freedom) * np.sqrt(of_a + of_b)).sum())


@pytest.mark.parametrize(("n", "m"), [(n, m) for n in range(2, 6) for m in range(2, 6)])
def test_type_one_error_is_at_most_six_percent(n: int, m: int) -> None:
    """Variance ratios 1 to 50; where the noisier method has fewer seeds, and where it has more."""
    generator = np.random.default_rng([n, m])
    rates = {ratio: error_rate(generator, n, m, ratio) / NUM_COMPARISONS for ratio in RATIOS}
    print(n, m, rates)
    assert max(rates.values()) <= 0.06, rates


def test_the_interval_is_the_t_interval_and_agrees_with_welch() -> None:
    """At equal seeds the interval lies between Welch's, from SciPy, and the one with the fewest degrees of freedom."""
    a, b = np.array([1.0, 1.3, 1.1]), np.array([0.4, 0.7, 0.3])
    found, welch = difference(Sample(a), Sample(b)), ttest_ind(a, b, equal_var=False)
    assert found is not None
    reach = found.interval.high - found.interval.value
    narrow = welch.confidence_interval(0.95).high - found.interval.value
    assert narrow < reach < narrow * student.ppf(0.975, 2) / student.ppf(0.975, welch.df)
    assert welch.pvalue < found.p_value
    assert found.interval.value == pytest.approx(a.mean() - b.mean())
    assert found.interval.sign == 1


def test_a_quiet_pair_beside_a_loud_method_keeps_its_own_noise() -> None:
    """Pooling over methods gave the interval of a pair the noise of a third method."""
    generator = np.random.default_rng(0)
    quiet = [Sample(m + 0.01 * generator.standard_normal(3)) for m in (0.0, 0.1)]
    assert difference(*quiet).interval.sign == -1  # type: ignore[union-attr]


def test_one_seed_or_no_noise_gives_no_interval() -> None:
    assert difference(Sample(np.array([1.0])), Sample(np.array([1.0, 2.0]))) is None
    assert difference(Sample(np.array([1.0, 1.0])), Sample(np.array([2.0, 2.0]))) is None
    assert difference(Sample(np.array([1.0, np.inf])), Sample(np.array([2.0, 2.0]))) is None
    assert mean_interval(Sample(np.array([1.0]))) is None


def test_seeds_that_agree_by_chance_keep_the_error_of_a_single_one() -> None:
    found = difference(Sample(np.array([0.0, 0.0, 0.0]), error=0.5), Sample(np.array([0.2, 0.2, 0.2]), error=0.5))
    assert found is not None
    assert found.interval.sign == 0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_holds_the_error_of_a_family() -> None:
    """Of four true null hypotheses at least one is rejected in at most 5 % of families."""
    generator = np.random.default_rng(1)
    wrong = sum(min(holm(list(generator.uniform(size=4)))) < 0.05 for _ in range(2000))
    assert wrong <= binom.ppf(0.999, 2000, 0.05)


def shares(values: list[float], num: int = 572) -> pd.DataFrame:
    return pd.DataFrame({"prompt_accuracy": values, "num_samples": num, "prompt_accuracy_se": 0.01})


def test_intervals_of_shares_stay_between_0_and_1() -> None:
    metric = METRICS["prompt_accuracy"]
    for values in ([1.0, 1.0], [0.999, 1.0, 0.99], [0.0, 0.002], [0.2, 0.9]):
        found = mean_interval(metric.sample(shares(values)))
        assert found is not None
        bar = found.map(metric.unscaled)
        assert 0 < bar.low < bar.value < bar.high < 1
    whole = metric.scaled(shares([1.0], 100))[0]
    assert expit(whole) == pytest.approx(100.5 / 101)


def test_two_perfect_methods_do_not_differ() -> None:
    """Four seeds at 572 of 572 against four at 571 of 572: half an image is no finding."""
    metric = METRICS["prompt_accuracy"]
    found = difference(metric.sample(shares([1.0] * 4)), metric.sample(shares([571 / 572] * 4)))
    assert found is not None
    assert found.interval.sign == 0


def test_intervals_of_distances_stay_above_0() -> None:
    metric = METRICS["fid"]
    rows = pd.DataFrame({"fid": [0.1, 1.5], "fid_se": [0.01, 0.1]})
    found = mean_interval(metric.sample(rows))
    assert found is not None
    assert found.map(metric.unscaled).low > 0


def test_negative_distances_compare_on_their_own_scale() -> None:
    metric = METRICS["kid"]
    rows = pd.DataFrame({"kid": [-0.01, 0.01, 0.0], "kid_se": 0.002})
    assert metric.sample(rows).mean == pytest.approx(0)
    assert metric.unscaled(-0.01) == -0.01


def test_sizes_are_chosen_on_validation_rows_and_reported_on_test() -> None:
    """The test rows are made best at another size than the validation rows: the validation's size stays."""
    frame = synthetic.table(synthetic.BUDGETS, raw=False)
    chosen = analyse(frame).best_sizes("fid").set_index(["method", "flops_budget"])["width"]
    test = frame["split"] == "test"
    frame.loc[test & (frame["width"] == 64), ["fid", "fid_se"]] = 1e-3
    found = analyse(frame).best_sizes("fid").set_index(["method", "flops_budget"])
    assert (found["width"] == chosen).all()
    assert (found["value"] > 0.1).all()


def test_without_validation_rows_the_choice_on_test_is_said() -> None:
    frame = synthetic.table(synthetic.BUDGETS, raw=False)
    with_validation = analyse(frame)
    without = analyse(frame[frame["split"] == "test"])
    assert not any("chosen on the test rows" in note for note in with_validation.notes)
    assert any("chosen on the test rows" in note for note in without.notes)
    assert len(without.best_sizes("fid")) == len(with_validation.best_sizes("fid"))


def test_metrics_without_validation_rows_use_the_size_of_the_metric_they_are_tuned_for() -> None:
    found = analyse(synthetic.table(synthetic.BUDGETS, raw=False))
    widths = [found.best_sizes(name)["width"].tolist() for name in ("fid", "kid")]
    assert widths[0] == widths[1]


def test_runs_that_are_not_reported_do_not_choose() -> None:
    """Trials of another learning rate, seen on validation conditions alone, are much better at one size."""
    frame = synthetic.table(synthetic.BUDGETS, raw=False)
    trials = frame[(frame["split"] == "validation") & (frame["width"] == 64)]
    trials = trials.assign(run_id=trials["run_id"] + "-other-rate", fid=1e-3)
    found = analyse(pd.concat([frame, trials])).best_sizes("fid")
    assert found["width"].tolist() == analyse(frame).best_sizes("fid")["width"].tolist()


def test_a_lucky_run_of_a_size_with_one_seed_bends_no_law() -> None:
    """At the top budget one size has a single run, far too good: the fit keeps to the sizes with three seeds, and says so."""
    frame = synthetic.table(synthetic.BUDGETS, raw=False)
    top = frame["flops_budget"] == frame["flops_budget"].max()
    thin = top & (frame["width"] == 64)
    lucky = frame[~(thin & (frame["seed"] > 0))].copy()
    lucky.loc[thin & (frame["seed"] == 0), ["fid", "fid_se"]] /= 3
    plain, found = (analyse(each, num_draws=60) for each in (frame[~thin], lucky))
    for method, fit in found.fits("fid").items():
        assert fit.exponent.value == pytest.approx(plain.fits("fid")[method].exponent.value, rel=1e-6)
        assert fit.set_aside == "the fit takes the best of the sizes with 3 seeds where one with fewer looks better: 3.16e19"
        assert plain.fits("fid")[method].set_aside == ""
    assert set(found.best_runs("fid")[lambda rows: rows["flops_budget"] == frame["flops_budget"].max()]["width"]) == {64}


def test_losses_choose_sizes_and_never_compare() -> None:
    """N*(C) by the validation loss is that of the known law, and no crossing of two methods' losses is looked for."""
    found = analyse(synthetic.table(synthetic.BUDGETS), num_draws=60)
    for method, fit in found.fits("validation_loss").items():
        assert fit.law is not None, method
        size, _ = found.paths("validation_loss")[method]
        assert size.exponent is not None
        assert size.exponent.low < 0.5 < size.exponent.high
    assert found.crossings("fid")
    assert found.crossings("validation_loss") == []
    assert found.metric("validation_loss").label == "validation loss"


def test_a_table_without_the_loss_has_none() -> None:
    frame = synthetic.table(synthetic.BUDGETS).drop(columns=["validation_loss"]).assign(validation_loss=np.nan)
    found = analyse(frame, num_draws=20)
    assert found.rows("validation_loss").empty
    assert found.rows("validation_bits").empty


def test_bits_of_two_tokenizers_share_no_axis() -> None:
    frame = synthetic.table(synthetic.BUDGETS)
    frame["validation_bits"] = frame["fid"] * 10
    both = analyse(frame, num_draws=20)
    assert "2 tokenizers" in quality_against_training(both, "validation_bits").missing
    codes = analyse(frame[frame["tokenizer"].str.contains("fsq")], num_draws=20)
    assert not quality_against_training(codes, "validation_bits").missing
