"""Images are scored a chunk at a time: the same numbers to the bit, and no more images in memory when there are more."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.open import open_data
from bench.evaluate import fidelity, image_stream
from bench.evaluate.examples import example_places
from bench.evaluate.image_stream import CHUNK_IMAGES, ImageStream, look_at, regrouped
from bench.evaluate.open import open_judge
from bench.evaluate.shapes_judge import ShapesJudge
from bench.evaluate.world_judge import WorldJudge
from bench.results.folder import Results

NUM, NUM_HELD_OUT, NUM_REFERENCE = 300, 270, 280
"""More than a chunk each, and no multiple of one."""


def opened(world: str, folder: Path) -> WorldJudge:  # type: ignore[type-arg]
    settings = Evaluation(num_samples=NUM, num_held_out=NUM_HELD_OUT, num_validation=NUM, num_reference=NUM_REFERENCE)
    found = open_judge(open_data(world), settings, Results(folder))
    assert isinstance(found, WorldJudge)
    return found


def spoiled(judge: WorldJudge, split: str, num: int) -> Tensor:  # type: ignore[type-arg]
    """Renders of a split under more and more noise, of which some obey their captions and some do not."""
    images = judge.renders(split, np.arange(num), 2_000_000).float()
    generator = torch.Generator().manual_seed(0)
    strength = 60 * torch.rand(num, 1, 1, 1, generator=generator)
    return (images + strength * torch.randn(images.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


def scores(world: str, folder: Path) -> dict[str, object]:
    """All that a judge says of images, and the features that it compares them with."""
    judge = opened(world, folder)
    images = ImageStream(NUM, spoiled(judge, "test", NUM).split(64), example_places(NUM, "test"))
    row = judge.test_scores(images, "autoencoder-kl")
    row |= {
        f"validation {name}": v for name, v in judge.validation_scores(ImageStream.of(spoiled(judge, "validation", NUM))).items()
    }
    row |= judge.held_out(lambda tokens, split: ImageStream.of(spoiled(judge, split, len(tokens))))
    examples = judge.examples(images, "test")
    shown = [examples.prompts, examples.obeyed, examples.reasons, examples.images.tolist()]
    assert examples.real is not None
    return {**row, "examples": [*shown, examples.real.tolist()], "reference": judge.reference.features.tolist()}


@pytest.mark.parametrize("world", ["shapes32", "sprites40"])
def test_chunks_change_no_number(world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images in chunks and all at once, real ones too: every score is the same to the bit."""
    chunked = scores(world, tmp_path / "chunked")
    assert 0.02 < chunked["prompt_accuracy"] < 0.98  # type: ignore[operator]
    monkeypatch.setattr(image_stream, "CHUNK_IMAGES", 10**6)
    whole = scores(world, tmp_path / "whole")
    for each in (chunked, whole):  # the autoencoder's batch is a chunk
        del each["fid_autoencoder"], each["prompt_accuracy_ceiling"]
    assert whole == chunked


@pytest.mark.parametrize("num", [64, 128])
def test_as_many_images_are_in_memory_however_many_are_scored(num: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated images and real ones are gone when the next chunk but one is made, but for those that the examples show."""
    monkeypatch.setattr(image_stream, "CHUNK_IMAGES", 16)
    settings = Evaluation(num_samples=num, num_held_out=0, num_validation=num, num_reference=num)
    alive = most = rendered = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counted(images: np.ndarray) -> Tensor:
        nonlocal alive, most
        weakref.finalize(images, gone)
        alive += 1
        most = max(most, alive)
        return torch.from_numpy(images)

    def made() -> Iterator[Tensor]:
        for number in range(num // 16):
            pixels = np.random.default_rng(number).integers(256, size=(16, 3, 32, 32), dtype=np.uint8)
            pixels[:, 0, 0, 0] = number
            yield counted(pixels)

    renders = ShapesJudge.renders

    def one_chunk(judge: ShapesJudge, split: str, places: np.ndarray, offset: int) -> Tensor:
        nonlocal rendered
        rendered += 1
        return counted(renders(judge, split, places, offset).numpy().copy())

    monkeypatch.setattr(ShapesJudge, "renders", one_chunk)
    judge = open_judge(open_data("shapes32"), settings, Results(tmp_path))
    images = ImageStream(num, made(), [0, num - 1])
    judge.test_scores(images, "autoencoder-kl")
    assert most <= 2
    assert rendered == 2 * num // 16  # the reference, and the floors' images
    assert images.at([0, num - 1])[:, 0, 0, 0].tolist() == [0, num // 16 - 1]
    assert alive == 0
    whole = torch.cat(list(ImageStream(num, made())))  # what the count would have seen before
    assert most == num // 16
    assert len(whole) == num


def test_batches_of_any_size_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1)
    monkeypatch.setattr(image_stream, "CHUNK_IMAGES", 16)
    for sizes in ([50], [7] * 8, [16, 16, 16, 2], [1] * 50, [33, 17]):
        chunks = list(regrouped(images.split(sizes) if sum(sizes) == 50 else images.split(7)))
        assert [len(chunk) for chunk in chunks] == [16, 16, 16, 2]
        assert torch.equal(torch.cat(chunks), images)
    assert list(regrouped([])) == []


def test_a_stream_that_ends_early_is_no_result() -> None:
    with pytest.raises(AssertionError, match="2 images came in place of 3"):
        look_at(ImageStream(3, [torch.zeros(2, 3, 8, 8, dtype=torch.uint8)]), [])


def test_every_networks_batch_divides_a_chunk(tmp_path: Path) -> None:
    """So that chunks change no batch; those of pretrained networks and of CLIP scores are 64, of the others 256 or 64."""
    judge = opened("shapes32", tmp_path)
    for batch in (judge.network.batch, fidelity.FeatureNetwork("any", 1, lambda images: (images,)).batch, 64):
        assert CHUNK_IMAGES % batch == 0


def test_many_captions_are_read_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = opened("shapes32", tmp_path)
    captions = judge.captions("test", 100)
    whole = judge._read_captions(captions)
    monkeypatch.setattr("bench.evaluate.world_judge.CAPTIONS_AT_ONCE", 30)
    torch.testing.assert_close(judge._read_captions(captions), whole, rtol=1e-5, atol=1e-6)
