"""A compiled loss is the plain one, costs what it costs, and gives way to the watch wherever its products may change."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from spaces import CODES, CONDITIONS, LATENTS
from torch import Tensor

from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.config.file import load_experiment
from bench.config.size import Size
from bench.data.latents import fill_cache
from bench.data.open import open_data
from bench.flops.meter import FlopMeter
from bench.paradigm import Paradigm
from bench.plan.cells import first_run
from bench.randomness import seed_draws, step_seed
from bench.train import billed_loss, checkpoint_callback
from bench.train.billed_loss import BilledLoss, repays
from bench.train.checkpoint_callback import InterruptedTrainingError
from bench.train.loop import Segment, train_segment
from bench.train.metrics_callback import Progress
from paradigms.mar import MAR
from paradigms.next_token import NextToken

BACKBONE, BATCH = BackboneConfig(width=16, depth=2, num_heads=1), 4
EXPERIMENT = load_experiment("shapes")
DATASET = open_data(EXPERIMENT.data)
RUN = first_run(EXPERIMENT, EXPERIMENT.methods[0], EXPERIMENT.sizes[0], 10**9, DATASET)
RUN = replace(RUN, recipe=replace(RUN.recipe, batch_size=BATCH))


class Changing(NextToken):
    """Runs its loss twice from some step on."""

    twice = False

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        loss, found = super().loss(tokens, condition)
        return (loss + super().loss(tokens, condition)[0] if self.twice else loss), found


class Looking(NextToken):
    """Looks at a number on the way, for which torch would need two graphs."""

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        loss, found = super().loss(tokens, condition)
        return (loss if tokens.is_meta or loss.mean().item() >= 0 else -loss), found


def made(cls: type[Paradigm]) -> tuple[Paradigm, FlopMeter, Paradigm]:
    space = LATENTS if cls is MAR else CODES
    torch.manual_seed(0)
    paradigm = cls(BACKBONE, space, CONDITIONS)
    with torch.device("meta"):
        copy = cls(BACKBONE, space, CONDITIONS)
    return paradigm, FlopMeter(copy, CONDITIONS, "meta-v2"), copy


def batch(cls: type[Paradigm]) -> tuple[Tensor, Condition]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(1, CONDITIONS.vocabulary, (BATCH, CONDITIONS.num_tokens), generator=generator)
    if cls is MAR:
        return torch.randn(BATCH, LATENTS.num_tokens, LATENTS.channels, generator=generator), Condition.of(words)
    return torch.randint(CODES.vocabulary, (BATCH, CODES.num_tokens), generator=generator), Condition.of(words)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles to the plain operators: the same graphs and guards in a tenth of the time."""
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda loss, options, **how: compile_with(loss, backend="eager", **how))


@pytest.fixture(scope="module")
def compiler() -> None:
    """What torch compiles for a CPU needs a C++ compiler and Python's headers."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:
        pytest.skip(f"torch compiles nothing here: {error}"[:200])


@pytest.mark.slow
def test_a_compiled_loss_is_the_plain_one_and_costs_as_much(compiler: None) -> None:
    paradigm, meter, _ = made(NextToken)
    plain, plain_meter, _ = made(NextToken)
    tokens, condition = batch(NextToken)
    billed = BilledLoss(RUN, paradigm, meter, compiles=True)
    watched = BilledLoss(RUN, plain, plain_meter, compiles=False)
    assert (billed.is_compiled, watched.is_compiled) == (True, False)
    for step in range(3):
        seed = step_seed(0, step, "loss")
        (fast, fast_bill), (slow, slow_bill) = billed(tokens, condition, seed), watched(tokens, condition, seed)
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
        assert fast_bill == slow_bill
        fast.mean().backward()
        slow.mean().backward()
    assert billed.is_compiled
    for mine, its in zip(paradigm.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-5)


def test_random_shapes_are_watched() -> None:
    paradigm, meter, _ = made(MAR)
    billed = BilledLoss(RUN, paradigm, meter, compiles=True)
    assert not billed.is_compiled
    tokens, condition = batch(MAR)
    bills = [billed(tokens, condition, step_seed(0, step, "loss"))[1] for step in range(8)]
    assert bills == [meter.recount(BATCH, step_seed(0, step, "loss")) for step in range(8)]
    assert len(set(bills)) > 1


def test_a_second_graph_ends_the_compiled_loss_and_is_billed(traced: None) -> None:
    paradigm, meter, copy = made(Changing)
    tokens, condition = batch(Changing)
    billed = BilledLoss(RUN, paradigm, meter, compiles=True)
    once = [billed(tokens, condition, seed)[1].dense for seed in range(3)]
    assert billed.is_compiled
    paradigm.twice = copy.twice = True
    more = [billed(tokens, condition, seed)[1].dense for seed in range(3)]
    assert not billed.is_compiled
    assert len(set(once)) == len(set(more)) == 1
    assert more[0] > 1.7 * once[0]


def test_a_change_that_the_meta_copy_does_not_share_is_found(traced: None) -> None:
    paradigm, meter, _ = made(Changing)
    tokens, condition = batch(Changing)
    billed = BilledLoss(RUN, paradigm, meter, compiles=True)
    billed(tokens, condition, 0)
    paradigm.twice = True
    billed(tokens, condition, 1)  # compiled anew, billed by the copy; watched from then on
    with pytest.raises(ValueError, match="other products"):
        billed(tokens, condition, 2)


def test_what_does_not_compile_is_watched(traced: None) -> None:
    paradigm, meter, _ = made(Looking)
    plain, _, _ = made(NextToken)
    tokens, condition = batch(Looking)
    billed = BilledLoss(RUN, paradigm, meter, compiles=True)
    assert billed.is_compiled
    loss, bill = billed(tokens, condition, 5)
    assert not billed.is_compiled
    seed_draws(5, tokens.device)
    torch.testing.assert_close(loss, plain.loss(tokens, condition)[0])
    assert bill == meter.recount(BATCH, 5)


def test_a_fault_of_the_loss_is_the_losss_own(traced: None) -> None:
    class Broken(NextToken):
        def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
            if not tokens.is_meta:
                raise RuntimeError("out of ideas")
            return super().loss(tokens, condition)

    paradigm, meter, _ = made(Broken)
    tokens, condition = batch(Broken)
    with pytest.raises(RuntimeError, match="out of ideas"):
        BilledLoss(RUN, paradigm, meter, compiles=True)(tokens, condition, 0)


def test_only_long_runs_of_small_models_repay_a_compilation() -> None:
    long = replace(RUN, flops_budget=2 * 10**12)
    assert repays(long)
    assert not repays(replace(long, flops_budget=10**12))
    assert not repays(replace(long, width=128))


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    folder = tmp_path / "latents"
    folder.mkdir()
    fill_cache(folder, 64, DATASET.row_bytes("autoencoder-kl"), DATASET.encoder("autoencoder-kl"), lambda _: None, chunk=64)
    return folder


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billed_loss, "COMPILED_FLOPS", 0.0)
    monkeypatch.setattr(checkpoint_callback, "CHECKPOINT_SECONDS", 0.0)


@pytest.mark.slow
def test_a_compiled_training_goes_on_to_the_bit_after_an_interruption(latents: Path, tmp_path: Path, always: None) -> None:
    run = first_run(EXPERIMENT, EXPERIMENT.methods[0], Size(width=16, depth=1, num_heads=1), 10**8, DATASET)
    run = replace(run, recipe=replace(run.recipe, num_training_images=64))

    def train(root: Path, stop_after: int | None = None) -> bytes:
        part = Segment(
            run=run,
            latents=latents,
            space=DATASET.space("autoencoder-kl"),
            conditions=DATASET.conditions,
            budget=1e8,
            stop_at=1e8,
            start=None,
            running=root / "running",
            weights=root / "weights.safetensors",
            metrics=root / "metrics.jsonl",
        )
        root.mkdir(exist_ok=True)

        def report(progress: Progress) -> None:
            nonlocal stop_after
            if stop_after is not None and progress.step >= stop_after:
                stop_after = None
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            train_segment(part, report, lambda _: None)
        except InterruptedTrainingError:
            train_segment(part, lambda _: None, lambda _: None)
        return (root / "weights.safetensors").read_bytes()

    assert train(tmp_path / "a") == train(tmp_path / "b", stop_after=20)
