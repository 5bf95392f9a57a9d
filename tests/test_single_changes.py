"""What one change does: which pairs count, ratios against the table, Holm's correction, and the figure."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic
from drawn import points
from scipy.stats import binom

from bench.analysis.comparison import Analysis, analyse
from bench.analysis.single_changes import CHANGEABLE, single_changes
from bench.report.change_figures import fid_after_one_change

TRAITS = {
    "causal": ("raster", "causal", "one", "cross-entropy", "fsq"),
    "random": ("random", "causal", "one", "cross-entropy", "fsq"),
    "continuous": ("raster", "causal", "one", "diffusion", "fsq"),
    "other": ("raster", "causal", "one", "diffusion", "kl"),
    "far": ("none", "bidirectional", "all", "image diffusion", "pixels"),
}
FIDS = {"causal": 1.0, "random": 2.0, "continuous": 1.5, "other": 1.5, "far": 9.0}
SINGLE = {
    ("causal", "random"): "order: raster → random",
    ("causal", "continuous"): "loss: cross-entropy → diffusion",
    ("continuous", "other"): "autoencoder: fsq → kl",
}


def analysis(noise: float = 0.02, num_seeds: int = 3, seed: int = 0) -> Analysis:
    """One budget, one size; FIDs scatter by noise around FIDS. A plugin of somebody else's has no traits."""
    generator = np.random.default_rng(seed)
    one = synthetic.table(np.array([1e18]), num_sizes=1, num_seeds=1, raw=False)
    shown, tested = (one[one["split"] == split].iloc[0].to_dict() for split in ("validation", "test"))
    rows = []
    for method, fid in {**FIDS, "foreign": 1.0}.items():
        for replica in range(num_seeds):
            named = {"run_id": f"{method}-{replica}", "method": method, "paradigm": method, "seed": replica}
            value = fid * math.exp(noise * generator.standard_normal())
            rows += [{**row, **named, "fid": value, "fid_se": 1e-6} for row in (shown, tested)]
    traits = {method: dict(zip(CHANGEABLE, values, strict=True)) for method, values in TRAITS.items()}
    return replace(analyse(pd.DataFrame(rows), num_draws=20), traits={**traits, "foreign": {"paradigm": "foreign"}})


def test_pairs_that_differ_in_one_thing_are_found() -> None:
    """Neither those that differ in two, nor methods of which nothing is known."""
    found = single_changes(analysis())
    assert {(each.first, each.second): each.what for each in found} == SINGLE
    for each in found:
        expected = FIDS[each.second] / FIDS[each.first]
        assert each.ratio.value == pytest.approx(expected, rel=0.05)
        assert each.ratio.holds(expected)
        assert each.is_established == (expected > 1)


def test_one_seed_says_nothing() -> None:
    chart = fid_after_one_change(analysis(num_seeds=1))
    assert "no two methods with several seeds differ" in chart.missing


@pytest.mark.parametrize("num", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_chance_is_seldom_called_a_change(num: int) -> None:
    """Of tables without any effect at most 5 % establish one of their three changes."""
    made, erred = analysis(), 0
    for seed in range(num):
        frame = made.frame.assign(fid=np.exp(0.2 * np.random.default_rng([seed, 5]).standard_normal(len(made.frame))))
        erred += any(each.is_established for each in single_changes(replace(made, frame=frame)))
    print(f"a change is found in {erred / num:.3f} of {num} tables without any")
    assert erred <= (0.06 * num if num >= 1000 else binom.ppf(0.999, num, 0.05))


def test_the_figure_shows_the_ratios() -> None:
    made = analysis()
    figure = fid_after_one_change(made).draw()
    changes = single_changes(made)
    for place, each in enumerate(changes):
        ((x, y),) = points(figure, f"{each.first} to {each.second}: ratio")
        assert (x, y) == (pytest.approx(each.ratio.value), place)
        assert [x for x, _ in points(figure, f"{each.second}: interval")] == pytest.approx([each.ratio.low, each.ratio.high])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"{each.what}\n{each.first} → {each.second}" for each in changes]
