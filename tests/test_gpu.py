"""What only a GPU can show: compiled steps, replayed graphs, and a real sweep whose runs share the device."""

import json
import math
from pathlib import Path

import pytest
import torch
from command_line import ONE_RUNG, bench_process, sweep_of, variant
from spaces import CODES, CONDITIONS, space_of
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.model import compile_on_gpu
from bench.paradigm import Paradigm
from bench.registry import BUILT_INS, load
from bench.results.folder import Results
from bench.results.table import load_table
from bench.testing import shake

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
BACKBONE = BackboneConfig(width=64, depth=2, num_heads=2)
ROWS = 8


def make(name: str) -> Paradigm:
    cls = load(name)
    torch.manual_seed(0)
    paradigm = cls(BACKBONE, space_of(cls), CONDITIONS)
    shake(paradigm)
    return paradigm.cuda()


def inputs(paradigm: Paradigm) -> tuple[Tensor, Condition]:
    generator, space = torch.Generator().manual_seed(1), paradigm.space
    features = space.features.example(ROWS, generator).cuda() if space.features else None
    words = torch.randint(1, CONDITIONS.vocabulary, (ROWS, CONDITIONS.num_tokens), generator=generator)
    return space.example(ROWS, generator).cuda(), Condition.of(words.cuda(), features)


def gradients(paradigm: Paradigm) -> tuple[Tensor, Tensor]:
    """The loss () of a step in bf16 and all gradients (P,)."""
    tokens, condition = inputs(paradigm)
    torch.manual_seed(0)
    with torch.autocast("cuda", torch.bfloat16):
        loss = paradigm.loss(tokens, condition)[0].mean()
    loss.backward()
    found = [each.grad for each in paradigm.parameters()]
    return loss.detach(), torch.cat([each.flatten() for each in found if each is not None])


@pytest.mark.parametrize("name", list(BUILT_INS))
def test_a_compiled_step_in_bf16_is_the_plain_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    loss, slow = gradients(make(name))
    monkeypatch.setenv("PARADIGM_BENCH_COMPILE", "1")
    compiled, fast = gradients(compile_on_gpu(make(name)))
    assert float(compiled) == pytest.approx(float(loss), rel=2e-2)
    assert float((fast - slow).norm() / slow.norm()) < 0.1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name", list(BUILT_INS))
def test_samples_are_finite_and_have_their_shape(name: str, guidance: float) -> None:
    paradigm = make(name).eval()
    _, condition = inputs(paradigm)
    generator = torch.Generator("cuda").manual_seed(0)
    with torch.inference_mode():
        out = paradigm.sample(condition, steps=None, guidance=guidance, temperature=1.0, generator=generator)
    assert out.shape == paradigm.space.empty(ROWS, paradigm.device).shape
    assert out.isfinite().all()


@pytest.mark.parametrize("order", ["raster", "random"])
def test_replayed_decoding_draws_the_codes_of_plain_decoding(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    paradigm = load("next-token")(BACKBONE, CODES, CONDITIONS, order=order)
    shake(paradigm)
    paradigm.cuda().double().eval()  # no rounding decides between two codes
    _, condition = inputs(paradigm)

    def codes() -> Tensor:
        generator = torch.Generator("cuda").manual_seed(0)
        return paradigm.sample(condition, steps=None, guidance=2.0, temperature=1.0, generator=generator)

    monkeypatch.setenv("PARADIGM_BENCH_GRAPHS", "1")
    with torch.inference_mode():
        replayed = [codes() for _ in range(2)]
        monkeypatch.setenv("PARADIGM_BENCH_GRAPHS", "0")
        plain = codes()
    assert all(torch.equal(each, plain) for each in replayed)


def test_a_replayed_diffusion_head_draws_the_tokens_of_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make("mar").head.eval()

    def tokens(rows: int) -> Tensor:
        generator = torch.Generator("cuda").manual_seed(rows)
        given = torch.randn(2 * rows, BACKBONE.width, device="cuda", generator=generator)
        return head.sample(given, temperature=1.0, guidance=2.0, generator=generator)

    monkeypatch.setenv("PARADIGM_BENCH_GRAPHS", "1")
    with torch.inference_mode():
        replayed = [tokens(rows) for rows in (3, 3, 5, 3)]
        monkeypatch.setenv("PARADIGM_BENCH_GRAPHS", "0")
        plain = [tokens(rows) for rows in (3, 3, 5, 3)]
    for ours, theirs in zip(replayed, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_two_runs_share_the_device_in_a_real_sweep_and_are_evaluated_on_it(tmp_path: Path) -> None:
    experiment = variant(tmp_path / "two.py", ONE_RUNG)
    done = bench_process(*sweep_of(experiment, tmp_path / "results", "--paradigms", "diffusion,next-token"))
    assert done.status == 0, done.err
    table = load_table(tmp_path / "results")
    tested = table[(table["split"] == "test") & table["ema"].astype(bool)]
    assert set(table["status"]) == {"done"}
    assert set(tested["method"]) == {"diffusion", "next-token"}
    assert tested["fid"].map(math.isfinite).all()
    assert (tested["peak_memory_bytes"] > 0).all()
    content = json.loads(Results(tmp_path / "results").environment.read_text())
    assert content["hardware"]["device"] == torch.cuda.get_device_name()
    assert " 1 at a time" not in done.err
