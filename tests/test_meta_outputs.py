"""Operators on the meta device, remembered: what they give must be what torch's kernels give."""

from typing import Any

import pytest
import torch
from test_step import HEAD, meter_of
from torch import Tensor

from bench.flops import meta_outputs
from bench.registry import load

BATCH = 4
aten = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def description(out: Any) -> Any:
    if isinstance(out, Tensor):
        return out.shape, out.stride(), out.dtype, out.device.type
    return tuple(map(description, out)) if isinstance(out, tuple | list) else out


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta_outputs, "_known", {})


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("name", ["diffusion", "masked-token", "next-token", "mar", "block-diffusion", "next-scale"])
def test_every_operator_of_a_step_gives_what_it_gives_when_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = meta_outputs.run
    asked = []

    def both(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = len(meta_outputs._known)
        out = remembered(func, args, kwargs)
        if func.namespace == "aten" and not func._schema.is_mutable:
            assert description(out) == description(func(*args, **kwargs)), func
        asked.append(len(meta_outputs._known) > before)
        return out

    monkeypatch.setattr(meta_outputs, "run", both)
    meter = meter_of(load(name), **({"head_options": HEAD} if name == "mar" else {}))
    assert meter.count(BATCH, 0) == meter.count(BATCH, 0)
    assert 100 < sum(asked) < len(asked) / 4  # most are remembered


@pytest.mark.usefixtures("empty")
def test_equal_counts_with_and_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of MAR, whose shapes change with the seed; tests/test_step.py compares all with real steps."""
    seeds = range(3)
    remembered = [meter_of(load("mar"), head_options=HEAD).count(BATCH, seed) for seed in seeds]
    monkeypatch.setattr(meta_outputs, "run", lambda func, args, kwargs: func(*args, **kwargs))
    assert [meter_of(load("mar"), head_options=HEAD).count(BATCH, seed) for seed in seeds] == remembered


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("func", "calls"),
    [
        (aten.add.Tensor, [(meta(2, 3), 1), (meta(2, 3), 1.0), (meta(2, 3, dtype=torch.int64), 1), (meta(2, 3), meta(3))]),
        (aten.add.Tensor, [(meta(2, 3, dtype=torch.int64), 1), (meta(2, 3, dtype=torch.int64), 1.0)]),
        (aten.add.Tensor, [(meta(4, 4), True), (meta(4, 4, dtype=torch.bool), True), (meta(4, 4, dtype=torch.bool), 1)]),
        (aten.clone.default, [(meta(4, 6),), (meta(6, 4).t(),), (meta(4, 12)[:, ::2],)]),
        (aten.cat.default, [([meta(2, 3), meta(4, 3)],), ([meta(2, 3), meta(4, 3), meta(1, 3)],)]),
        (aten.native_layer_norm.default, [(meta(2, 5, 8), [8], meta(8), meta(8), 0.1), (meta(2, 5, 8), [5, 8], None, None, 0.1)]),
        (aten.sum.dim_IntList, [(meta(2, 3), [0]), (meta(2, 3), [1]), (meta(2, 3), [1], True)]),
    ],
)  # fmt: skip
def test_calls_that_differ_are_told_apart(func: Any, calls: list[tuple[Any, ...]]) -> None:
    for _ in range(2):
        for args in calls:
            assert description(meta_outputs.run(func, args, {})) == description(func(*args))
    assert len(meta_outputs._known) == len(calls)


@pytest.mark.usefixtures("empty")
def test_what_may_not_be_remembered_is_run() -> None:
    base, there = meta(4, 6), torch.arange(6.0)
    view = meta_outputs.run(aten.t.default, (base,), {})
    assert view.untyped_storage()._cdata == base.untyped_storage()._cdata
    assert meta_outputs.run(aten.add_.Tensor, (base, 1), {}) is base
    assert torch.equal(meta_outputs.run(aten.add.Tensor, (there, 1), {}), there + 1)
    assert meta_outputs.run(aten.add.Tensor, (meta(2, dtype=torch.complex64), 1), {}).dtype == torch.complex64
    assert not meta_outputs._known


@pytest.mark.usefixtures("empty")
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta_outputs, "MOST_REMEMBERED", 5)
    for size in range(1, 20):
        assert meta_outputs.run(aten.add.Tensor, (meta(size), 1), {}).shape == (size,)
        assert len(meta_outputs._known) <= 5
