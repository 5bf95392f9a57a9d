"""Claims: found by what methods are, judged in five verdicts, and said to be undecidable before anything is trained."""

import inspect
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from bench.analysis.claims import Claim, judge, undecidable
from bench.analysis.comparison import analyse
from bench.analysis.effects import Effect
from bench.analysis.intervals import Interval
from bench.analysis.statements import STATEMENTS
from bench.analysis.traits import BUILT_INS, DEFAULT_STEPS, autoencoder, method_traits, num_tokens, traits
from bench.analysis.verdicts import verdict
from bench.analysis.welch import Difference
from bench.config import Experiment
from bench.config.file import load_experiment
from bench.data.open import open_data
from bench.plan.ladder import resolved
from bench.registry import load
from bench.results.table import load_table

ROOT = Path(__file__).parent.parent
AVERAGING = "Averaging the weights helps diffusion most"
CATCHES_UP = "Diffusion catches up with next-token prediction on FID as compute grows"


def experiments() -> list[Experiment]:
    found = [path for path in sorted((ROOT / "experiments").glob("*.py")) if "learning_rates" not in path.name]
    loaded = [load_experiment(str(path), None) for path in found]
    return [resolved(each, round(each.budget)) for each in loaded]


def identity(experiment: Experiment) -> dict:
    data = experiment.data if isinstance(experiment.data, str) else asdict(experiment.data)
    return {"data": data, "methods": {m.name: asdict(m) for m in experiment.methods}}


def verdicts(frame: pd.DataFrame) -> dict[str, Claim]:
    return {claim.text: claim for claim in judge(analyse(frame, num_draws=200))}


def effect(value: float, p_value: float) -> Effect:
    return Effect("a", "b", "", Difference(Interval(value - 1, value, value + 1), p_value))


# -- traits


@pytest.mark.parametrize("paradigm", BUILT_INS)
def test_traits_are_those_of_the_classes(paradigm: str) -> None:
    found, cls = traits(paradigm, {}, [8], 16), load(paradigm)
    options = inspect.signature(cls.__init__).parameters
    assert found["tokens"] == cls.reads
    assert (found["attention"] in ("causal", "by scales")) == (cls.default_steps is None)
    if hasattr(cls, "default_head"):
        assert found["loss"] == cls.default_head
    if found["attention"] == "causal" and "order" in options:
        assert found["order"] == options["order"].default
        assert traits(paradigm, {"order": "random"}, [], 16)["order"] == "random"
    elif found["order"] == "random":
        assert cls.default_steps == DEFAULT_STEPS


def test_every_built_in_has_traits() -> None:
    from bench.registry import BUILT_INS as known

    assert set(BUILT_INS) == set(known)


@pytest.mark.parametrize("experiment", experiments(), ids=lambda e: e.name)
def test_tokens_per_image_are_those_of_the_data(experiment: Experiment) -> None:
    dataset = open_data(experiment.data)
    for method in experiment.methods:
        assert num_tokens(identity(experiment)["data"], method.tokenizer) == dataset.space(method.tokenizer).num_tokens
        assert autoencoder(identity(experiment)["data"], method.tokenizer) == dataset.tokenizer_config(method.tokenizer).part


def test_options_and_steps_change_traits() -> None:
    assert traits("mar", {"head": "squared-error"}, [8], 16)["loss"] == "squared-error"
    assert traits("masked-token", {"weight": "elbo"}, [8], 16)["loss"] == "likelihood bound"
    steps = {tuple(s): traits("mar", {}, list(s), 16)["tokens_per_step"] for s in ((16,), (8,), (8, 16), (None,))}
    assert list(steps.values()) == ["one", "several", "varied", "one"]
    assert traits("mar", {}, [8], None)["tokens_per_step"] == "unknown"
    blocks = [({}, [4]), ({}, [2]), ({"block": 8}, [4]), ({"block": 8}, [None])]
    assert [traits("block-diffusion", o, s, 16)["tokens_per_step"] for o, s in blocks] == ["one", "several", "several", "one"]
    assert traits("somebodys", {"order": "raster"}, [8], 16) == {"paradigm": "somebodys"}


def test_every_claim_finds_its_methods_in_some_experiment() -> None:
    found = {e.name: method_traits(json.loads(json.dumps(identity(e)))) for e in experiments()}
    for statement in STATEMENTS:
        assert any(statement.pairs(methods) for methods in found.values()), statement.text
    compared = {s.text for s in STATEMENTS if s.pairs(found["imagenet256-mar"])}
    assert "Continuous tokens with Diffusion Loss beat cross-entropy on codes" in compared
    assert "Random order with bidirectional attention beats raster causal" in compared


def test_the_eight_cells_pair_as_the_paper_pairs_them() -> None:
    methods = method_traits(identity(load_experiment(str(ROOT / "experiments" / "mar_table1.py"), None)))
    pairs = {s.text: s.pairs(methods) for s in STATEMENTS}
    assert sorted(pairs["Continuous tokens with Diffusion Loss beat cross-entropy on codes"]) == [
        (f"{cell}-diffusion", f"{cell}-cross-entropy")
        for cell in ("random-bidirectional-one", "random-bidirectional-several", "random-causal-one", "raster-causal-one")
    ]
    assert sorted(pairs["Bidirectional attention beats causal attention in random order"]) == [
        (f"random-bidirectional-one-{loss}", f"random-causal-one-{loss}") for loss in ("cross-entropy", "diffusion")
    ]
    assert pairs["The squared error in place of Diffusion Loss fails"] == [
        ("random-bidirectional-several-diffusion", "random-bidirectional-several-squared-error")
    ]


# -- verdicts


@pytest.mark.parametrize(
    ("effects", "said", "of_a_superlative"),
    [
        ([(1, 0.001), (1, 0.001)], "supported", "supported"),
        ([(1, 0.001), (1, 0.2)], "undecided", "undecided"),
        ([(1, 0.2), (-1, 0.3)], "undecided", "undecided"),
        ([(-1, 0.001), (-1, 0.2)], "contradicted", "contradicted"),
        ([(1, 0.001), (-1, 0.001)], "mixed", "contradicted"),
        ([(1, 0.001), (1, 0.03), (-1, 0.03)], "undecided", "undecided"),  # Holm: 3 x .001, 2 x .03, .03
        ([], "not tested", "not tested"),
    ],
)
def test_verdicts(effects: list[tuple[float, float]], said: str, of_a_superlative: str) -> None:
    found = [effect(*e) for e in effects]
    assert verdict(found, superlative=False) == said
    assert verdict(found, superlative=True) == of_a_superlative


def test_an_effect_without_an_interval_decides_nothing() -> None:
    assert verdict([effect(1, 0.001), Effect("a", "c", "one seed")], superlative=False) == "undecided"
    assert verdict([effect(-1, 0.001), Effect("a", "c", "one seed")], superlative=True) == "contradicted"


def test_claims_are_judged_as_the_table_was_made() -> None:
    found = verdicts(synthetic.table(synthetic.BUDGETS))
    for text, said in {
        "Token prediction follows prompts better than diffusion": "supported",
        "Next-token prediction leads the token methods on prompt following": "supported",
        "At low compute next-token prediction has the best image quality": "supported",
        CATCHES_UP: "supported",
        "Next-token prediction needs the least compute per sample": "supported",
        "Diffusion has the lowest latency": "supported",
        "Next-token prediction has the highest throughput": "supported",
        AVERAGING: "not tested",
        "Random order beats raster order under causal attention": "not tested",
    }.items():
        assert found[text].verdict == said, found[text]
        assert found[text].evidence
    assert "constant rate" in found[AVERAGING].evidence
    assert "p = " in found[CATCHES_UP].evidence


def test_the_same_claims_contradicted_and_undecided() -> None:
    frame = synthetic.table(synthetic.BUDGETS)
    swapped = {"diffusion": "next-token", "next-token": "diffusion"}
    frame["method"], frame["paradigm"] = frame["method"].replace(swapped), frame["paradigm"].replace(swapped)
    found = verdicts(frame)
    assert found[CATCHES_UP].verdict == "contradicted"
    assert found["Diffusion has the lowest latency"].verdict == "contradicted"
    loud = verdicts(synthetic.table(synthetic.BUDGETS, noise=1.0))
    assert {c.verdict for text, c in loud.items() if "prompt following" in text} == {"undecided"}
    single = verdicts(synthetic.table(synthetic.BUDGETS, num_seeds=1))
    assert {c.verdict for c in single.values()} <= {"undecided", "not tested"}


def test_labels_do_not_matter() -> None:
    frame = synthetic.table(synthetic.BUDGETS)
    plain = {text: claim.verdict for text, claim in verdicts(frame).items()}
    frame["method"] = frame["method"].map({"diffusion": "x", "next-token": "y", "masked-token": "z", "mar": "w"})
    assert {text: claim.verdict for text, claim in verdicts(frame).items()} == plain


def test_cost_is_compared_at_a_quality_that_both_reach() -> None:
    """Diffusion gets settings cheaper than next-token's: they count where they follow prompts, and not where they do not."""
    frame, text = synthetic.table(synthetic.BUDGETS), "Next-token prediction needs the least compute per sample"
    mine = frame[(frame["split"] == "validation") & (frame["method"] == "diffusion")]
    cheap = pd.concat(mine.assign(flops_per_sample=1e9 * 1.2**k, sampler_steps=k) for k in range(12))
    poor = verdicts(pd.concat([frame, cheap.assign(prompt_accuracy=0.01)]))[text]
    assert poor.verdict == "supported"
    assert "8e9 (diffusion)" in poor.evidence
    good = verdicts(pd.concat([frame, cheap]))[text]
    assert good.verdict == "contradicted"
    assert "1e9 (diffusion)" in good.evidence


def test_an_accuracy_of_nothing_matches_no_cost() -> None:
    """Where one method follows no prompt, costs are compared at an FID that both reach."""
    frame, text = synthetic.table(synthetic.BUDGETS), "Next-token prediction needs the least compute per sample"
    frame.loc[frame["method"] == "diffusion", "prompt_accuracy"] = 0.0
    pair = next(effect for effect in verdicts(frame)[text].effects if effect.second == "diffusion")
    assert " at fid " in pair.text
    assert "prompt_accuracy" not in pair.text


def test_a_quality_that_test_rows_do_not_confirm_decides_nothing() -> None:
    frame = synthetic.table(synthetic.BUDGETS)
    frame.loc[(frame["split"] == "test") & (frame["method"] == "next-token"), "prompt_accuracy"] = 0.05
    found = verdicts(frame)["Next-token prediction needs the least compute per sample"]
    assert found.verdict == "undecided"
    assert "not confirmed on test: next-token has prompt_accuracy 0.05" in found.evidence


def test_a_trend_needs_budgets_above_the_floor() -> None:
    frame = synthetic.table(synthetic.BUDGETS).assign(fid_autoencoder=0.49, fid_floor=0.48)
    assert verdicts(frame)[CATCHES_UP].verdict == "supported"
    frame["fid_autoencoder"] = 7.0
    found = verdicts(frame)[CATCHES_UP]
    assert found.verdict == "undecided"
    assert "above the floor" in found.evidence


def test_correlated_rungs_do_not_make_a_trend() -> None:
    """One seed of each method is lucky at all rungs: its ladder shifts as a whole, and the slopes stay as they were."""
    frame = synthetic.table(synthetic.BUDGETS, noise=1e-3)
    before = verdicts(frame)[CATCHES_UP].effects[0].found
    frame.loc[frame["seed"] == 1, ["fid", "fid_se"]] *= 2
    after = verdicts(frame)[CATCHES_UP].effects[0].found
    assert before is not None
    assert after is not None
    assert after.interval.value == pytest.approx(before.interval.value, rel=1e-6)


# -- before training


def planned(seeds: int, lowest: int) -> pd.DataFrame:
    rows = [
        {"method": method, "flops_budget": budget, "width": width, "depth": 4, "seed": seed}
        for method in ("diffusion", "next-token", "masked-token", "mar")
        for budget in (1e11, 1e12)
        for width in (32, 64)
        for seed in range(lowest if budget == 1e11 else seeds)
    ]
    return pd.DataFrame(rows)


def test_the_plan_says_which_claims_its_seeds_cannot_decide() -> None:
    methods = {name: traits(name, {}, [8], 16) for name in ("diffusion", "next-token", "masked-token", "mar")}
    assert undecidable(methods, planned(3, 3)) == []
    low = undecidable(methods, planned(3, 1))
    assert low == ["At low compute next-token prediction has the best image quality", CATCHES_UP]
    few = undecidable(methods, planned(2, 2))
    assert "Diffusion has the lowest latency" in few
    assert AVERAGING not in few
    assert "One token per step is better than several" not in few


# -- committed tables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mar-table1",
            {
                "Random order with bidirectional attention beats raster causal": "mixed",
                "Random order beats raster order under causal attention": "contradicted",
                "Continuous tokens with Diffusion Loss beat cross-entropy on codes": "contradicted",
                "One token per step is better than several": "undecided",
            },
        ),
    ],
)
def test_committed_tables_are_judged(name: str, expected: dict[str, str]) -> None:
    folder = ROOT / "results" / name
    analysis = analyse(load_table(folder), identity=json.loads((folder / "experiment.json").read_text()))
    found = {claim.text: claim.verdict for claim in judge(analysis)}
    assert {text: found[text] for text in expected} == expected
    assert all(np.isfinite(e.found.p_value) for c in judge(analysis) for e in c.effects if e.found is not None)
