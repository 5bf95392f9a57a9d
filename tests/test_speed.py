"""What `make bench` compares is the same work: slow and fast give equal tokens, and goals are compared as stated."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from spaces import CODES, CONDITIONS

from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.config.file import load_experiment
from bench.data.open import open_data
from bench.data.shapes_data import TokenizedShapes
from bench.plan.cells import first_run
from bench.speed import small
from bench.speed.growth import draw, peak_bytes, series
from bench.speed.large import cached, evaluated, noise, once
from bench.speed.memory import private_megabytes, spent
from bench.speed.published import measure_published, ours, published
from bench.speed.sampling import modulations_anew, sample_without_cache, token_sampler
from bench.speed.setup import with_runs
from bench.speed.timing import Spread, ratio, rounds, row
from bench.speed.training import bare_step, flops_of_step, products
from bench.testing import shake
from paradigms.next_token import NextToken


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("order", ["raster", "random"])
def test_sampling_without_a_cache_gives_the_same_codes(order: str, guidance: float) -> None:
    torch.manual_seed(0)
    paradigm = NextToken(BackboneConfig(width=32, depth=2, num_heads=2), CODES, CONDITIONS, order=order).eval()
    shake(paradigm)
    condition = Condition.of(torch.randint(1, CONDITIONS.vocabulary, (4, CONDITIONS.num_tokens)))
    with torch.inference_mode():
        fast = paradigm.sample(
            condition, steps=None, guidance=guidance, temperature=1.0, generator=torch.Generator().manual_seed(0)
        )
    slow = sample_without_cache(paradigm, condition, guidance, torch.Generator().manual_seed(0))
    assert torch.equal(fast, slow)


def test_goals_are_compared_with_the_median() -> None:
    assert row("p", "s", "q", 0.5, "s", "<= 0.5")["reached"] is True
    assert row("p", "s", "q", Spread(4.9, 4.0, 6.0), "1", ">= 5")["reached"] is False
    assert row("p", "s", "q", None, "1", ">= 5")["reached"] is None
    assert row("p", "s", "q", 3.0, "1")["goal"] is None


def test_rounds_warm_up_and_interleave() -> None:
    called: list[str] = []
    taken = rounds({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, repeats=3)
    assert called == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 3}
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0], 10.0) == Spread(20.0, 20.0, 25.0)


def test_a_bare_step_trains_the_runs_model() -> None:
    experiment, dataset = load_experiment("shapes"), open_data("shapes32")
    method = experiment.methods[0]
    run = first_run(experiment, method, experiment.sizes[0], 10**12, dataset)
    space = dataset.space(method.tokenizer)
    bare_step(run, space, dataset.conditions)(0)
    assert flops_of_step(run, space, dataset.conditions, 0) > 6 * 4 * 12 * run.width**2 * space.num_tokens
    product, flops = products(64, 128, torch.float32)
    assert [part.shape for part in product()] == [(128, 256)]
    assert flops == 2 * 128 * 64 * 256
    product, more = products(64, 128, torch.float32, 2.5 * flops)
    assert len(product()) == 3
    assert more == 3 * flops


def test_kept_modulations_change_no_code_and_save_products() -> None:
    _, _, _, sample = token_sampler(BackboneConfig(width=32, depth=2, num_heads=2), 2)
    kept = sample()
    with modulations_anew():
        assert torch.equal(sample(), kept)
    assert torch.equal(sample(), kept)


def test_the_harness_is_compared_at_small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WIDTHS": (16,), "ROUNDS": 2, "FIRST_STEP": 20, "LAST_STEP": 40}.items():
        monkeypatch.setattr(small, name, value)
    experiment, dataset = load_experiment("shapes").select(["mar"]), open_data("shapes32")
    harness, gain = small.measure_overhead(experiment, dataset)
    assert (harness["size"], harness["goal"], gain["goal"]) == ("16x4", "<= 1.03", ">= 1.6")
    low, high = harness["low"], harness["high"]  # quartiles of two rounds, from which the rounds follow
    shares = 1.5 * low - 0.5 * high, 1.5 * high - 0.5 * low
    assert gain["value"] == pytest.approx(sum(small.HARNESS_AT_COMMIT["mar", 16] / share for share in shares) / 2)


@pytest.mark.slow
def test_a_long_run_is_compared_with_its_loss_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"COMPILED_WIDTHS": (16,), "ROUNDS": 2, "FIRST_STEP": 20, "LAST_STEP": 40, "COMPILED_STEPS": 3}
    for name, value in settings.items():
        monkeypatch.setattr(small, name, value)
    rows = list(small.measure_compiled(load_experiment("shapes").select(["next-token"]), open_data("shapes32")))
    if rows[0]["value"] is None:
        pytest.skip("torch compiles nothing here")
    assert [each["quantity"] for each in rows] == [
        "step over step with a compiled loss",
        "until a compiled loss has run",
        f"long run, steps/s over those at commit {small.COMMIT}",
    ]
    assert all(each["value"] > 0 for each in rows)


def test_more_runs_keep_to_the_cells_of_the_experiment() -> None:
    experiment = load_experiment("shapes")
    many = with_runs(experiment, 200)
    for before, after in zip(experiment.num_seeds, many.num_seeds, strict=True):
        assert [count > 0 for count in before] == [count > 0 for count in after]
    runs = len(many.methods) * sum(sum(row) for row in many.num_seeds)
    assert 200 <= runs < 200 + len(many.methods) * sum(map(len, many.num_seeds))


def test_growth_is_measured_and_drawn(tmp_path) -> None:
    assert peak_bytes(lambda: torch.zeros(1_000_000)) == pytest.approx(4e6, rel=0.01)
    rows = list(series("tokens", (1000, 4000), lambda n: lambda: torch.zeros(n).sum(), size="zeros"))
    memory = [each["value"] for each in rows if each["quantity"] == "memory"]
    assert memory[1] == pytest.approx(4 * memory[0], rel=0.1)
    draw(pd.DataFrame(rows).assign(device="cpu", num_threads=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["growth-tokens.png"]


def test_private_memory_is_seen_at_its_peak() -> None:
    """That of a call that has given it back when it returns, without what was held before."""
    held = np.ones(25_000_000)
    found = spent(held_for_a_while)
    assert found.seconds > 0.3
    assert found.megabytes == pytest.approx(8 * 12_500_000 / 2**20, rel=0.1)
    assert private_megabytes() > held.nbytes / 2**20


def held_for_a_while() -> None:
    """100 MB for .3 seconds."""
    array = np.ones(12_500_000)
    time.sleep(0.3)
    del array


def test_each_value_of_a_large_series_runs_once_and_its_last_has_goals() -> None:
    called: list[int] = []
    rows = list(once("images", (1, 2, 4), lambda num: lambda: called.append(num), ("<= 10", "<= 1000"), size="none"))
    assert called == [1, 1, 2, 4]
    assert [(each["at"], each["quantity"]) for each in rows] == [
        (at, kind) for at in (1, 2, 4) for kind in ("time", "private memory")
    ]
    assert [each["goal"] for each in rows] == [None] * 4 + ["<= 10", "<= 1000"]
    assert all(each["value"] > 0 for each in rows)


def test_large_series_do_what_they_say() -> None:
    dataset = open_data("shapes32")
    assert isinstance(dataset, TokenizedShapes)
    cached(dataset, "autoencoder-kl", 3000)()
    evaluated(30)()
    images = list(noise(300))
    assert [len(part) for part in images] == [256, 44]
    assert not torch.equal(images[0][:44], images[1])


def test_the_published_code_is_compared_only_where_it_is(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAR_REFERENCE", raising=False)
    assert [each["value"] for each in measure_published()] == [None]
    for owner in (torch.Tensor, torch.nn.Module):
        monkeypatch.setattr(owner, "cuda", owner.cuda)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="cannot be used"):
        published(tmp_path)
    parameters = sum(p.numel() for p in ours().parameters())
    assert parameters == pytest.approx(5_278_368, rel=0.05)  # the published class at this configuration, counted by running it
