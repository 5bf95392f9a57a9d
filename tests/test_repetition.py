"""Repeated images: methods with a number of their own, ratios per seed with intervals that hold, and the figure."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from drawn import points
from miniature import EXPERIMENT

from bench.analysis.comparison import Analysis, analyse
from bench.analysis.repetition import Repeated, repetition, tolerated
from bench.config.file import load_experiment
from bench.data.open import open_data
from bench.plan.cells import grid_cells
from bench.plan.machine import Machine
from bench.plan.plan import make_plan
from bench.progress import Display
from bench.report.repetition_figures import loss_against_epochs
from bench.results.folder import Results
from bench.results.identity import bind_experiment, read_identity
from bench.sweep.latents import encode_latents, missing_latents

COUNTS = (16_384, 1024, 64)
SEEN = 8192
HARMS = {"diffusion": (1.0, 1.02, 1.3), "next-token": (1.0, 1.2, 3.0)}
"""True loss over that without repetition, by paradigm and number of images."""


def table(noise: float = 0.02, num_seeds: int = 3, seed: int = 0) -> pd.DataFrame:
    """Losses whose seeds are lucky at every number of images alike, and a little on their own."""
    generator = np.random.default_rng(seed)
    (one,) = synthetic.table(np.array([1e18]), num_sizes=1, num_seeds=1, raw=False).iloc[:1].to_dict("records")
    rows = []
    for paradigm, harms in HARMS.items():
        luck = 0.3 * generator.standard_normal(num_seeds)
        for count, harm in zip(COUNTS, harms, strict=True):
            for replica in range(num_seeds):
                loss = 2.0 * harm * math.exp(luck[replica] + noise * generator.standard_normal())
                named = {"run_id": f"{paradigm}-{count}-{replica}", "method": f"{paradigm}-{count}", "paradigm": paradigm}
                measured = {"seed": replica, "epochs": round(SEEN / count, 3), "images_seen": SEEN, "validation_loss": loss}
                rows.append(
                    {**one, **named, **measured, "split": None, "fid": math.nan, "kid": math.nan, "prompt_accuracy": math.nan}
                )
    return pd.DataFrame(rows)


def found_in(frame: pd.DataFrame) -> dict[tuple[str, int], Repeated]:
    return {(each.paradigm, each.num_images): each for each in repetition(analyse(frame, num_draws=20))}


def test_ratios_are_taken_seed_by_seed() -> None:
    """What a seed's luck does to all its losses cancels."""
    found = found_in(table())
    assert len(found) == 6
    for paradigm, harms in HARMS.items():
        for count, harm in zip((16_400, 1020, 64), harms, strict=True):
            each = found[paradigm, count]
            assert each.epochs == pytest.approx(SEEN / count, rel=0.01)
            assert each.ratio == pytest.approx(harm, rel=0.06)
            assert each.interval.high - each.interval.low < 0.3 * harm
        assert found[paradigm, 16_400].ratio == 1


def test_intervals_hold_the_truth() -> None:
    held = []
    for seed in range(60):
        found = found_in(table(seed=seed))
        held += [found[name, 64].interval.holds(harms[-1]) for name, harms in HARMS.items()]
    assert np.mean(held) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(held))


def test_one_seed_has_no_interval_and_two_numbers_no_curve() -> None:
    assert {each.interval for each in found_in(table(num_seeds=1)).values()} == {None}
    frame = table()
    assert not found_in(frame[~frame["method"].str.endswith("-64")])
    assert loss_against_epochs(analyse(synthetic.table(synthetic.BUDGETS[:2], num_sizes=1), num_draws=20)).missing


def test_the_epochs_that_a_paradigm_bears() -> None:
    """On the line between 8 epochs at 1.2 and 128 at 3."""
    curve = [Repeated("a", 1e18, epochs, 0, ratio, None) for epochs, ratio in ((0.5, 1.0), (8.0, 1.2), (128.0, 3.0))]
    assert tolerated(curve, 1.2) == pytest.approx(8)
    assert tolerated(curve, math.sqrt(1.2 * 3)) == pytest.approx(32)
    assert tolerated(curve, 4.0) == math.inf


def test_the_figure_shows_the_ratios_and_names_who_suffers_first() -> None:
    analysis: Analysis = analyse(table(noise=0.0), num_draws=20)
    chart = loss_against_epochs(analysis)
    assert not chart.missing
    assert chart.caption.endswith("1.1 times the loss is reached at 2.1 epochs (next-token), 19 epochs (diffusion).")
    figure = chart.draw()
    for paradigm, harms in HARMS.items():
        drawn = points(figure, f"{paradigm}: ratios")
        assert [y for _, y in drawn] == pytest.approx(harms)
        assert [x for x, _ in drawn] == pytest.approx([SEEN / count for count in COUNTS], rel=1e-3)


def test_methods_draw_from_their_own_number_of_images(tmp_path: Path) -> None:
    """In plan, identity and latent caches; a folder of before there were such numbers is still the experiment's."""
    first = EXPERIMENT.methods[1]
    methods = (first, replace(first, label="few", num_training_images=64))
    experiment = replace(EXPERIMENT, methods=methods)
    numbers = {cell.method.name: cell.recipe.num_training_images for cell in grid_cells(experiment, round(4e9))}
    assert numbers == {"next-token": 512, "few": 64}
    dataset, results = open_data("shapes32"), Results(tmp_path / "results")
    plan = make_plan(experiment, round(4e9), dataset, Machine("cpu", num_workers=1, num_threads=1))
    assert plan.cached == {64: ["autoencoder-fsq"], 512: ["autoencoder-fsq"]}
    assert plan.cache_bytes["autoencoder-fsq"] == (64 + 512) * dataset.row_bytes("autoencoder-fsq")
    few, many = (plan.frame[plan.frame["method"] == name]["epochs"].to_numpy() for name in ("few", "next-token"))
    assert few == pytest.approx(8 * many, rel=0.01)
    assert len(missing_latents(plan, results, dataset)) == 2
    encode_latents(plan, results, dataset, Display(quiet=True))
    assert not missing_latents(plan, results, dataset)
    bind_experiment(results, plan.identity)
    assert read_identity(results).methods["few"].num_training_images == 64
    content = json.loads(results.experiment.read_text())
    del content["methods"]["next-token"]["num_training_images"]
    results.experiment.write_text(json.dumps(content))
    bind_experiment(results, plan.identity)


def test_the_study_differs_in_numbers_of_images_alone() -> None:
    methods = load_experiment("repetition").methods
    alike = {replace(method, label="", num_training_images=None).name: method for method in methods}
    assert len(alike) == 4
    for method in methods:
        other = alike[method.paradigm]
        assert replace(method, label="", num_training_images=None) == replace(other, label="", num_training_images=None)
