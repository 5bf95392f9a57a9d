"""What `make bench` compares is the same work: slow and fast give equal tokens, and goals are compared as stated."""

import pandas as pd
import pytest
import torch
from spaces import CODES, CONDITIONS

from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.config.file import load_experiment
from bench.data.open import open_data
from bench.plan.cells import first_run
from bench.speed.growth import draw, peak_bytes, series
from bench.speed.published import measure_published, ours, published
from bench.speed.sampling import sample_without_cache
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


def test_growth_is_measured_and_drawn(tmp_path) -> None:
    assert peak_bytes(lambda: torch.zeros(1_000_000)) == pytest.approx(4e6, rel=0.01)
    rows = list(series("tokens", (1000, 4000), lambda n: lambda: torch.zeros(n).sum(), size="zeros"))
    memory = [each["value"] for each in rows if each["quantity"] == "memory"]
    assert memory[1] == pytest.approx(4 * memory[0], rel=0.1)
    draw(pd.DataFrame(rows).assign(device="cpu", num_threads=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["growth-tokens.png"]


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
