"""Real images that settings are chosen against are none of those that the test compares with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.config.experiment import Evaluation
from bench.config.file import load_experiment
from bench.data.image_data import TokenizedImages
from bench.evaluate.fidelity import frechet_distance
from bench.evaluate.image_judge import ImageJudge, Places
from bench.evaluate.image_stream import ImageStream
from bench.results.folder import Results

DIGITS = load_experiment("digits").data
"""1,348 images for training, and 449 others."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARADIGM_BENCH_CACHE", str(tmp_path / "cache"))


def rows(dataset: TokenizedImages, places: Places) -> set[int]:
    found = dataset.spread(places.images, places.start, places.start + places.num)
    assert len(found) == places.num
    return set(found.tolist())


@pytest.mark.parametrize(
    ("evaluation_split", "num_reference", "expected"),
    [
        ("test", 450, ("train", 450)),  # none are left in the evaluation split
        ("test", 220, ("test", 220)),
        ("", 450, ("train", 450)),
        ("", 5000, ("train", 674)),  # half of what there is
    ],
)
def test_the_two_references_share_no_image(
    evaluation_split: str, num_reference: int, expected: tuple[str, int], tmp_path: Path
) -> None:
    dataset = TokenizedImages(replace(DIGITS, evaluation_split=evaluation_split))
    settings = Evaluation(num_samples=100, num_validation=100, num_reference=num_reference)
    judge = ImageJudge(dataset, settings, Results(tmp_path))
    test, validation = judge._test_images, judge._validation_images
    assert (validation.split, validation.num) == expected
    assert test.split == (evaluation_split or "train")
    if test.split == validation.split:
        assert not rows(dataset, test) & rows(dataset, validation)


def test_settings_are_scored_against_the_validation_reference(tmp_path: Path) -> None:
    dataset = TokenizedImages(DIGITS)
    judge = ImageJudge(dataset, Evaluation(num_samples=100, num_validation=200, num_reference=400), Results(tmp_path))
    ((images, _),) = judge._read(dataset.training_set, 0, 200)
    row = judge.validation_scores(ImageStream.of(images))
    last = torch.cat([part for part, _ in judge._read(dataset.training_set, len(dataset.training_set) - 400, 400)])
    features = judge.network.features(images)
    expected = judge.network.features(last)
    assert row["fid"] == pytest.approx(frechet_distance(features, judge._validation_reference.gaussian))
    np.testing.assert_allclose(judge._validation_reference.features, expected, rtol=1e-4, atol=1e-4)
    assert row["reference"] == judge._validation_reference.name != judge.reference.name
    assert row["num_reference"] == 400
    assert row["fid"] != pytest.approx(frechet_distance(features, judge.reference.gaussian), rel=1e-3)
