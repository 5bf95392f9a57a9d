"""Fronts of inference: the best of n against what probability says, costs by hand, fronts of tables with known laws, the figure,
and the study itself in miniature."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fronts as study
import numpy as np
import pandas as pd
import pytest
from drawn import points

from bench.analysis.fronts import fronts, gains, leaders, pareto
from bench.config.experiment import Setting
from bench.config.file import load_experiment
from bench.data.open import open_data
from bench.evaluate import candidates
from bench.evaluate.candidates import counted_costs, flops_of_choice, kept, scores
from bench.evaluate.evaluator import Evaluator
from bench.evaluate.fidelity import Gaussian, frechet_distance
from bench.evaluate.world_judge import load_clip
from bench.report.front_figures import quality_against_inference
from bench.results.strategies import CLIP, KEEPERS, NO_CHOICE, NUMBERS, VERIFIER, affordable_numbers

NUM, DRAWN = 4000, 16
REFERENCE = Gaussian(np.zeros(4), np.eye(4))
JUDGE: Any = SimpleNamespace(
    reference_of=lambda split: REFERENCE,
    captions=lambda split, num: np.arange(num),
    clusters=lambda captions: captions,
    network=SimpleNamespace(name="toy"),
    clip=SimpleNamespace(flops=lambda: (30, 7)),
)


def drawn(share: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Samples that are right with a probability, scores and features that know nothing of it."""
    generator = np.random.default_rng(seed)
    return {
        "exact": generator.random((DRAWN, NUM)) < share,
        "clip": generator.standard_normal((DRAWN, NUM)),
        "features": generator.standard_normal((DRAWN, NUM, 4)),
    }


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_the_best_of_n_is_right_as_often_as_probability_says(share: float) -> None:
    seen = drawn(share)
    for number in NUMBERS:
        expected = 1 - (1 - share) ** number
        row = scores(JUDGE, seen, VERIFIER, number, "test")
        assert row["num_sets"] == DRAWN // number
        error = math.sqrt(expected * (1 - expected) / (NUM * row["num_sets"])) + 1e-9
        assert abs(row["prompt_accuracy"] - expected) < 4 * error
        assert 0.7 * error < row["prompt_accuracy_se"] + 2e-4
        blind = scores(JUDGE, seen, CLIP, number, "test")
        assert abs(blind["prompt_accuracy"] - share) < 4 * math.sqrt(share * (1 - share) / (NUM * row["num_sets"]))
        assert max(row["fid"], blind["fid"]) < 0.02


def test_a_score_that_knows_keeps_what_the_verifier_keeps() -> None:
    seen = drawn(0.3)
    assert (kept({**seen, "clip": seen["exact"]}, CLIP, 8) == kept(seen, VERIFIER, 8)).all()


def test_what_is_kept_and_its_fid_by_hand() -> None:
    exact = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=bool)
    clip = np.array([[0.1, 0.2, 0.9], [0.0, 0.3, 0.1], [0.5, 0.1, 0.2], [0.4, 0.3, 0.3]])
    features = np.random.default_rng(0).standard_normal((4, 3, 4))
    seen = {"exact": exact, "clip": clip, "features": features}
    assert kept(seen, NO_CHOICE, 1).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]
    assert kept(seen, VERIFIER, 2).tolist() == [[1, 0, 0], [2, 2, 3]]
    assert kept(seen, CLIP, 2).tolist() == [[0, 1, 0], [2, 3, 3]]
    assert kept(seen, CLIP, 3).tolist() == [[2, 1, 0]]
    row = scores(
        JUDGE,
        {**seen, "features": np.tile(features, (1, 8, 1)), "exact": np.tile(exact, 8), "clip": np.tile(clip, 8)},
        CLIP,
        3,
        "test",
    )
    assert row["prompt_accuracy"] == pytest.approx(1 / 3)
    one = np.tile(features[[2, 1, 0], [0, 1, 2]], (8, 1))
    assert row["fid"] == pytest.approx(frechet_distance(one, REFERENCE))


def test_costs_by_hand() -> None:
    costs = {"flops_per_sample": 100, "flops_per_decode": 20}
    assert flops_of_choice(JUDGE, costs, NO_CHOICE, 1) == 100
    assert flops_of_choice(JUDGE, costs, VERIFIER, 4) == 400
    assert flops_of_choice(JUDGE, costs, CLIP, 4) == 4 * (100 + 20 + 30) + 7
    assert affordable_numbers(100, 450) == [1, 2, 4]
    assert affordable_numbers(1000, 450) == [1]


def test_the_clip_costs_what_its_shapes_say() -> None:
    """A block is four projections, attention and two layers of the MLP; image and text towers of the sprites' CLIP."""
    clip = load_clip(open_data("sprites40"))
    resolution, _, words, hidden, patch = clip.sizes
    width = 64

    def tower(tokens: int, blocks: int) -> int:
        return blocks * (2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width)

    patches = (resolution // patch) ** 2
    image = tower(patches + 1, 3) + 2 * patches * 3 * patch**2 * width + 2 * width**2
    assert clip.flops() == (image, tower(words + 2, 2) + 2 * width**2)


# -- fronts of tables with known laws

LAWS = {"diffusion": (4.0, 0.5), "next-token": (1.0, 0.1)}
"""FID at 1e6 FLOPs and its exponent."""


def table(num_seeds: int = 3, noise: float = 0.02, seed: int = 0) -> pd.DataFrame:
    """Steps 1 to 64 at two sizes, of which the larger one is twice as dear and half as good; with the best of 4 by the verifier
    at four times the cost, which has twenty times the odds and the same FID."""
    generator = np.random.default_rng(seed)
    rows = []
    for method, (scale, exponent) in LAWS.items():
        for replica in range(num_seeds):
            luck = math.exp(noise * generator.standard_normal())
            for width, factor, worse in ((32, 1.0, 1.0), (48, 2.0, 2.0)):
                for steps in (1, 4, 16, 64):
                    for keeper, number in ((NO_CHOICE, 1), (VERIFIER, 4)):
                        for split in ("validation", "test"):
                            flops = 1e6 * factor * steps * number
                            fid = worse * scale * (flops / number / 1e6) ** -exponent * luck * (1.1 if split == "test" else 1)
                            odds = 0.05 / fid * (20 if number > 1 else 1)
                            rows.append(
                                {"run_id": f"{method}-{width}-{replica}", "method": method, "flops_budget": 3e12, "seed": replica}
                                | {"width": width, "depth": 4, "sampler_steps": steps, "guidance": 1.0, "temperature": 1.0}
                                | {
                                    "sampler_options": None,
                                    "keeper": keeper,
                                    "candidates": number,
                                    "split": split,
                                    "flops": flops,
                                }
                                | {"num_samples": 500, "fid": fid, "fid_se": 0.01, "fid_network": "toy", "prompt_judge": "toy"}
                                | {"prompt_accuracy": odds / (1 + odds), "prompt_accuracy_se": 0.01, "setting": steps}
                            )
    return pd.DataFrame(rows)


def test_pareto_of_a_toy_table() -> None:
    cost, quality = np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([5.0, 4.0, 4.5, 4.2, 1.0])
    assert pareto(cost, quality, higher_is_better=False) == [0, 1, 4]
    assert pareto(cost, quality, higher_is_better=True) == [0]
    assert pareto(np.array([4.0, 1.0]), np.array([2.0, 1.0]), higher_is_better=True) == [1, 0]


def test_a_front_is_chosen_on_validation_and_reported_on_test() -> None:
    frame = table(num_seeds=1, noise=0.0)
    diffusion, token = fronts(frame, "fid")
    assert (diffusion.method, token.method) == ("diffusion", "next-token")
    assert [point.label for point in diffusion.points] == ["1", "4", "16", "64"]
    assert {point.strategy["width"] for point in diffusion.points} == {32}
    for point in diffusion.points:
        assert point.value(diffusion.metric) == pytest.approx(1.1 * 4.0 * (point.cost / 1e6) ** -0.5)
        assert point.interval(diffusion.metric) is None
    # what is better on test captions alone is not chosen
    frame.loc[(frame["split"] == "test") & (frame["width"] == 48), "fid"] = 1e-3
    assert {point.strategy["width"] for point in fronts(frame, "fid")[0].points} == {32}
    chosen = study.chosen(frame)
    assert {where[2] for where in chosen} == {32}
    assert chosen["diffusion", 3e12, 32, 4, 64] == 4


def test_a_strategy_that_one_seed_lacks_is_not_chosen() -> None:
    frame = table(noise=0.0)
    frame = frame[~((frame["seed"] == 1) & (frame["sampler_steps"] == 64))]
    assert [point.label for point in fronts(frame, "fid")[0].points] == ["1", "4", "16"]


def test_the_best_of_n_extends_a_front_only_where_it_pays() -> None:
    frame = table(noise=0.0)
    assert [point.label for point in fronts(frame, "fid", VERIFIER)[0].points] == ["1", "4", "16", "64"]
    accuracy = fronts(frame, "prompt_accuracy", VERIFIER)[0]
    assert [point.label for point in accuracy.points] == ["1", "n=4", "n=4", "n=4", "n=4"]
    assert fronts(frame, "prompt_accuracy", CLIP)[0].points[-1].label == "64"


def test_a_factor_of_ten_buys_what_the_law_says() -> None:
    found = gains(table()).set_index(["metric", "keeper", "method"])
    for method, (_, exponent) in LAWS.items():
        row = found.loc["fid", NO_CHOICE, method]
        assert row["gain"] == pytest.approx(10**-exponent, rel=0.02)
        assert row["effect"] == "ratio"
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert row["num_seeds"] == 3
        assert found.loc["prompt_accuracy", NO_CHOICE, method]["gain"] == pytest.approx(10**exponent, rel=0.08)
    alone = gains(table(num_seeds=1))
    assert alone["gain_low"].isna().all()
    assert alone["gain"].notna().all()


def test_intervals_of_the_gain_hold_the_truth() -> None:
    """Seeds that differ in their slopes, as normal deviates of .05 around the truth do."""
    held, generator = [], np.random.default_rng(0)
    frame = table(noise=0.0)
    frame = frame[frame["keeper"] == NO_CHOICE]
    for _ in range(40):
        slopes = dict(enumerate(0.05 * generator.standard_normal(3)))
        tilted = frame.assign(fid=frame["fid"] * (frame["flops"] / 1e6) ** frame["seed"].map(slopes))
        for front in fronts(tilted, "fid"):
            gain = front.gain()
            assert gain is not None
            assert gain[1] is not None
            held.append(gain[1].holds(10 ** -LAWS[front.method][1]))
    assert np.mean(held) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(held))


def test_who_leads_at_each_cost() -> None:
    """Next-token begins at FID 1.1, which diffusion reaches only with 40 times the FLOPs at its exponent of .4 more."""
    found = leaders(table(noise=0.0), (NO_CHOICE,))
    fid = found[(found["metric"] == "fid") & (found["rank"] == 1)].set_index("flops_at_most")["method"]
    assert fid[1e6] == "next-token"
    assert fid[1e7] == "next-token"
    assert fid[1e8] == "diffusion"
    assert (found["flops"] <= found["flops_at_most"]).all()
    assert found["value_low"].notna().all()


def test_the_figure_shows_the_tables_numbers() -> None:
    frame = table()
    chart = quality_against_inference(frame, 3e12, VERIFIER)
    assert not chart.missing
    assert "labeled by n. Bars are 95 % t intervals" in chart.caption
    figure = chart.draw()
    test = frame[(frame["split"] == "test") & (frame["width"] == 32) & (frame["method"] == "diffusion")]
    fid, accuracy = figure.axes
    plain = test[test["keeper"] == NO_CHOICE].groupby("flops")["fid"].mean()
    assert np.array(points(fid, "diffusion: points")) == pytest.approx(np.array(list(plain.items())))
    assert points(fid, "diffusion: line") == points(fid, "diffusion: points")
    assert not points(fid, "diffusion: best of n: points")
    best = test[test["keeper"] == VERIFIER].groupby("flops")["prompt_accuracy"].mean()
    found = points(accuracy, "diffusion: best of n: points")
    assert [x for x, _ in found] == list(best.index)
    assert [y for _, y in found] == pytest.approx(list(best))
    assert [text.get_text() for text in accuracy.texts].count("n=4") == 4 * len(LAWS)
    assert quality_against_inference(frame[frame["split"] == "validation"], 3e12, VERIFIER).missing


# -- the study


def test_the_shipped_study() -> None:
    """Every range holds temperature 1 without guidance, no setting comes twice, and the runs are the laws' own."""
    experiment, laws = load_experiment("inference"), load_experiment("laws")
    assert {method.paradigm for method in experiment.methods} == set(study.SETTINGS)
    known = {method.paradigm: method for method in laws.methods}
    for method in experiment.methods:
        settings = study.settings_of(method)
        assert len(set(map(repr, settings))) == len(settings)
        assert any(setting.temperature == 1 and setting.guidance == 1 for setting in settings)
        assert replace(method, learning_rates=()) == replace(known[method.paradigm], learning_rates=())
    assert experiment.recipe == laws.recipe
    assert set(experiment.sizes) <= set(laws.sizes)


def test_the_study_in_miniature(own_sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One sample is what the evaluation drew, many steps cost what counting them says, what is done is not done again, and the
    figures come from the rows alone."""
    monkeypatch.setattr(study, "SETTINGS", {})
    monkeypatch.setattr(candidates, "MOST_COUNTED", 8)
    folder = study.open_folder(own_sweep)
    lower = min(run.flops_budget for run in folder.identity.runs.values())
    for run_id, run in folder.identity.runs.items():
        if run.flops_budget == lower:
            folder.results.run_folder(run_id).weights.unlink()
    most = 1e7
    frame = study.measure(own_sweep, most, workers=1)
    assert set(frame["keeper"]) == {NO_CHOICE, *KEEPERS}
    assert frame[frame["keeper"] != NO_CHOICE]["flops_per_sample"].max() * 2 <= most
    assert set(frame["split"]) == {"validation", "test"}
    first = ["run_id", "sampler_steps", "guidance", "sampler_options"]
    theirs = pd.read_csv(own_sweep / "table.csv")
    theirs = theirs[(theirs["split"] == "validation") & (theirs["ema"] == True)]  # noqa: E712
    alone = frame[(frame["split"] == "validation") & (frame["keeper"] == NO_CHOICE)]
    both = alone.fillna({"sampler_steps": -1, "sampler_options": ""}).merge(
        theirs.fillna({"sampler_steps": -1, "sampler_options": ""}), on=first, suffixes=("", "_theirs")
    )
    assert 2 * len(both) == 2 * len(alone) == len(theirs)
    assert both["flops"].tolist() == both["flops_per_sample_theirs"].tolist()
    once = both[both["num_sets"] == 1]
    assert once["fid"].to_numpy() == pytest.approx(once["fid_theirs"].to_numpy(), rel=1e-5)
    assert once["prompt_accuracy"].tolist() == once["prompt_accuracy_theirs"].tolist()
    many = both[both["num_sets"] > 1]
    assert len(once)
    assert len(many)
    assert many["fid"].to_numpy() == pytest.approx(many["fid_theirs"].to_numpy(), rel=0.5)

    identity = folder.identity
    evaluator = Evaluator(folder.dataset, identity.evaluation, folder.results)
    for paradigm, setting in (
        ("diffusion", Setting(steps=12)),
        ("mar", Setting(steps=2, guidance=1.5, options=study.head("ancestral", 12))),
    ):
        run_id = next(each for each, run in identity.runs.items() if run.paradigm == paradigm and run.flops_budget > lower)
        sampler = folder.sampler(run_id)
        counted, line = evaluator.costs(sampler, setting), counted_costs(evaluator, sampler, setting)
        assert line == {name: counted[name] for name in line}

    capsys.readouterr()
    study.report(own_sweep, frame)
    assert "gain" in capsys.readouterr().out
    assert {path.name for path in own_sweep.glob("*.csv")} >= {"fronts.csv", "gains.csv", "leaders.csv"}
    assert len(list((own_sweep / "figures").glob("quality-against-inference-flops-*.png"))) == 2
    for weights in own_sweep.glob("runs/*/weights.safetensors"):
        weights.unlink()
    again = study.measure(own_sweep, most, workers=1)
    pd.testing.assert_frame_equal(again, frame)
