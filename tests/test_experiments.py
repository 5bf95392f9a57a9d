"""The shipped comparisons give every method equal chances."""

import json
from dataclasses import asdict, replace

import pytest

from bench.config.experiment import Experiment, Method
from bench.config.file import load_experiment

COMPARISONS = [
    "shapes",
    "laws",
    "mar_table1",
    "digits",
    "shapes64",
    "imagenet256",
    "imagenet256_mar",
    "imagenet512",
    "cc12m",
    "coco",
    "ladder",
]
SEARCHES = [
    "shapes_learning_rates",
    "mar_table1_learning_rates",
    "digits_learning_rates",
    "ablations_learning_rates",
    "laws_learning_rates",
]


@pytest.mark.parametrize("name", COMPARISONS)
def test_sampler_settings_are_equal_in_number_and_hold_temperature_1(name: str) -> None:
    experiment: Experiment = load_experiment(name)
    counts = {method.name: len(method.settings) for method in experiment.methods}
    assert len(set(counts.values())) == 1, counts
    for method in experiment.methods:
        assert len(set(map(repr, method.settings))) == len(method.settings), method.name
        assert any(setting.temperature == 1 and setting.guidance == 1 for setting in method.settings), method.name


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_tries_the_same_rates_for_every_method(name: str) -> None:
    search: Experiment = load_experiment(name)
    assert search.search
    assert len({method.learning_rates for method in search.methods}) == 1
    rates = search.methods[0].learning_rates
    assert list(rates) == sorted(set(rates))
    used = load_experiment(name.removesuffix("_learning_rates"))
    for method in used.methods:
        for rate in used.rates(method, 0):
            assert rates[0] < rate < rates[-1], f"{method.name} uses {rate:g}, an edge of {rates}"


def test_cells_of_table_1_train_as_the_methods_whose_rates_they_have() -> None:
    """What no other search has tried is in the table's own; the steps of a sampler change no training."""
    table, searched = load_experiment("mar_table1"), load_experiment("mar_table1_learning_rates")
    others = load_experiment("loss_and_tokenizer").methods
    own = {method.name for method in searched.methods}
    assert len(own) == 4
    for method in table.methods:
        alike = [o for o in others if (o.paradigm, o.tokenizer, o.options) == (method.paradigm, method.tokenizer, method.options)]
        assert [o.learning_rates for o in alike] == ([] if method.name in own else [method.learning_rates]), method.name
    cells = {method.name: method for method in table.methods}
    for loss in ("cross-entropy", "diffusion"):
        one, several = (cells[f"random-bidirectional-{steps}-{loss}"] for steps in ("one", "several"))
        assert {setting.steps for setting in one.settings} == {16}
        assert replace(one, label="", settings=several.settings) == replace(several, label="")


def test_the_ablations_middle_head_is_mar_as_elsewhere() -> None:
    ablated, newer = ({m.name: m for m in load_experiment(name).methods} for name in ("ablations", "newer"))
    for label, name in {"mar-head-32": "mar", "masked-token": "masked-token"}.items():
        assert replace(ablated[label], label="", settings=()) == replace(newer[name], settings=())
    base, *varied = ablated["mar-head-32"].settings
    for setting in varied:  # one thing at a time
        assert sum(a != b for a, b in zip(asdict(base).values(), asdict(setting).values(), strict=True)) == 1
    assert all(ablated[f"mar-head-{width}"].settings == (base, *varied) for width in (16, 64))


def test_several_rates_at_a_size() -> None:
    """They are read back from JSON, and each size has its own."""
    experiment: Experiment = load_experiment("shapes")
    method = replace(experiment.methods[0], learning_rates=((1e-3, 4e-3), 2e-3))
    assert Method.from_dict(json.loads(json.dumps(asdict(method)))) == method
    assert [experiment.rates(method, index) for index in (0, 1)] == [(1e-3, 4e-3), (2e-3,)]
    search = experiment.learning_rate_search(rates=(1e-3, 2e-3, 4e-3), budget=1e12, num_validation=10)
    assert search.rates(search.methods[0], 0) == (1e-3, 2e-3, 4e-3)
