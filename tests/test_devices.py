"""One step on several devices and in micro-batches: the same images, noise, loss and run_id, whatever the division."""

import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from command_line import MINIATURE, Command, sweep_of
from on_devices import DATASET, METHODS, make_run, on_devices, train_part
from processes import workers_of
from safetensors.torch import load_file
from torch import Tensor

from bench.data.latents import fill_cache
from bench.files import read_lines
from bench.plan.machine import num_cores
from bench.randomness import Part, PartRandomness, micro_batches
from bench.results.folder import checkpoints
from bench.results.table import load_table

STEPS = 20


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in {method.tokenizer for method in METHODS.values()}}
    for name, folder in folders.items():
        fill_cache(folder, 64, DATASET.row_bytes(name), DATASET.encoder(name), lambda _: None, chunk=64)
    return folders


def budget_of(paradigm: str, folder: Path) -> float:
    """FLOPs of about STEPS steps, from one whole training."""
    return read_lines(folder / "metrics.jsonl")[STEPS - 1]["flops_spent"]


@pytest.fixture(scope="module", params=list(METHODS))
def whole(
    request: pytest.FixtureRequest, latents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, float]:
    """A paradigm trained in one process without micro-batches."""
    paradigm, root = request.param, tmp_path_factory.mktemp("whole")
    probe = root / "probe"
    train_part(latents[METHODS[paradigm].tokenizer], paradigm, probe, None, 3e9, None)
    budget = budget_of(paradigm, probe)
    train_part(latents[METHODS[paradigm].tokenizer], paradigm, root, None, budget, None)
    return paradigm, root, budget


def same_training(ours: Path, theirs: Path) -> None:
    lines = [read_lines(root / "metrics.jsonl") for root in (ours, theirs)]
    assert [line["flops_spent"] for line in lines[0]] == [line["flops_spent"] for line in lines[1]]
    assert len(lines[0]) >= STEPS
    assert [line["loss"] for line in lines[0]] == pytest.approx([line["loss"] for line in lines[1]], rel=1e-5)
    weights = [load_file(root / "weights.safetensors") for root in (ours, theirs)]
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=2e-4), name


@pytest.mark.parametrize("micro_batch", [pytest.param(4, marks=pytest.mark.slow), 2])
def test_micro_batches_change_nothing(
    whole: tuple[str, Path, float], latents: dict[str, Path], tmp_path: Path, micro_batch: int
) -> None:
    paradigm, straight, budget = whole
    train_part(latents[METHODS[paradigm].tokenizer], paradigm, tmp_path, micro_batch, budget, None)
    same_training(tmp_path, straight)


@pytest.fixture(scope="module")
def divided(whole: tuple[str, Path, float], latents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training three times on two devices: as it is, in micro-batches of 2, and with a signal at step 7."""
    paradigm, _, budget = whole
    folder, root = latents[METHODS[paradigm].tokenizer], tmp_path_factory.mktemp("divided")
    given = (("as it is", None, None), ("micro-batches", 2, None), ("interrupted", None, 7))
    on_devices(2, *((folder, paradigm, root / name, micro_batch, budget, signal_at) for name, micro_batch, signal_at in given))
    return root


@pytest.mark.parametrize("name", ["as it is", "micro-batches"])
def test_two_devices_change_nothing(whole: tuple[str, Path, float], divided: Path, name: str) -> None:
    same_training(divided / name, whole[1])


def test_a_signal_to_one_stops_all_and_another_division_goes_on(
    whole: tuple[str, Path, float], divided: Path, latents: dict[str, Path]
) -> None:
    paradigm, straight, budget = whole
    root = divided / "interrupted"
    first, second = ((root / f"interrupted-{rank}").read_text() for rank in range(2))
    assert first == second
    assert first.endswith(("at step 7", "at step 8"))
    assert len(checkpoints(root / "running")) == 1
    train_part(latents[METHODS[paradigm].tokenizer], paradigm, root, 2, budget, None)
    same_training(root, straight)


DRAWS = {
    "rand": lambda x: torch.rand(len(x), 3),
    "rand, a tuple": lambda x: torch.rand((len(x), 3)),
    "rand, by name": lambda x: torch.rand(size=(len(x), 3)),
    "randn, rows of images": lambda x: torch.randn(5 * len(x), 2),
    "randn, one axis": lambda x: torch.randn(len(x)),
    "randint": lambda x: torch.randint(3, 100, (len(x), 7)),
    "randint from 0": lambda x: torch.randint(100, (len(x),)),
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "uniform_": lambda x: torch.empty_like(x).uniform_(-1, 1),
    "normal_": lambda x: torch.empty_like(x).normal_(),
    "exponential_": lambda x: torch.empty_like(x).exponential_(),
    "bernoulli": lambda x: torch.bernoulli(x.abs().clamp(max=1)),
    "multinomial": lambda x: torch.multinomial(x.abs() + 0.1, 1),
    "shared": lambda x: torch.rand(()) * x,
}


@pytest.mark.parametrize("name", list(DRAWS))
@pytest.mark.parametrize("count", [2, 4])
def test_a_part_draws_what_its_images_get_in_the_whole_batch(name: str, count: int) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))

    def drawn(part: Part) -> Tensor:
        rows = x[part.rows(8)]
        torch.manual_seed(0)
        torch.rand(())
        with PartRandomness(part, len(rows)):
            return DRAWS[name](rows)

    whole = drawn(Part())
    assert torch.equal(whole, torch.cat([drawn(Part(index, count)) for index in range(count)]))
    assert whole.float().std() > 0


def test_draws_that_cannot_be_divided_are_refused() -> None:
    with PartRandomness(Part(0, 2), 4), pytest.raises(ValueError, match=r"torch.normal cannot be divided"):
        torch.normal(torch.zeros(4), torch.ones(4))


def test_batches_that_cannot_be_divided_are_refused() -> None:
    assert [micro_batches(64, 4, largest) for largest in (None, 16, 15, 5, 2)] == [1, 1, 2, 4, 8]
    with pytest.raises(ValueError, match="cannot be divided among 3 devices; DEVICES times NODES may be 1, 2, 4"):
        micro_batches(64, 3, None)
    with pytest.raises(ValueError, match="MICRO_BATCH=1 is too small for 32 images per device"):
        micro_batches(64, 2, 1)


def test_the_division_is_no_part_of_a_run() -> None:
    assert not {"devices", "nodes", "micro_batch"} & set(asdict(make_run("mar")))


# -- whole sweeps


def sweep(root: Path, *, kill: int | None = None) -> str:
    """A sweep of one paradigm on two devices; with `kill` the process of that rank is killed in training."""
    process = Command(
        *sweep_of(MINIATURE, root, "--paradigms", "next-token", "--devices", "2"), PARADIGM_BENCH_CHECKPOINT_SECONDS="0.2"
    )
    if kill is not None:
        deadline = time.monotonic() + 120
        while not list(root.glob("*/*/running/*.ckpt")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(workers_of(process.pid)[kill], signal.SIGKILL)
    said = process.wait()
    assert process.poll() == (0 if kill is None else 1), said
    return said


@pytest.mark.skipif(num_cores() < 2 and not torch.cuda.is_available(), reason="two devices are two cores here, and there is one")
def test_a_sweep_on_two_devices_is_the_sweep_on_one_and_survives_a_kill(swept: Path, tmp_path: Path) -> None:
    """The process that follows is killed; the row of its run names the signal, and the next sweep trains it."""
    one = load_table(swept)
    one = one[one["method"] == "next-token"]
    said = sweep(tmp_path, kill=1)
    assert "one of its processes died of SIGKILL (killed, perhaps out of memory): " in said
    assert load_table(tmp_path)["status"].eq("failed").any()
    sweep(tmp_path)
    two = load_table(tmp_path)
    assert two["status"].eq("done").all()
    assert one["run_id"].tolist() == two["run_id"].tolist()
    assert one["flops_spent"].tolist() == two["flops_spent"].tolist()
    assert one["loss"].tolist() == pytest.approx(two["loss"].tolist(), rel=1e-3)
