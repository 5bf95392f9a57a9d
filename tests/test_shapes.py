import hashlib

import numpy as np
import pytest

from bench.data.shapes_render import render_split, signed_distance
from bench.data.shapes_world import RGB, SHAPES, SHAPES32, SHAPES64, SPLITS, ShapesConfig, ShapesWorld

FIRST_100_TRAINING_IMAGES = {
    "shapes32": "f7d56316d5853bf9ae74c1c153dadb159193dc0609de68deee67f2d560d95d17",
    "shapes64": "d6a961a331beb08bf25c4a9c52da1cc747dea25ada06f4d262565cd8a94ba922",
}
"""SHA-256 of generator version 1. A change here is a new version, not a new constant."""


@pytest.mark.parametrize("config", [SHAPES32, SHAPES64], ids=lambda c: c.name)
def test_first_images_are_bit_stable(config: ShapesConfig) -> None:
    images, _ = render_split(ShapesWorld(config), "train", np.arange(100))
    assert hashlib.sha256(images.tobytes()).hexdigest() == FIRST_100_TRAINING_IMAGES[config.name]


def test_an_image_depends_on_its_index_alone(world: ShapesWorld) -> None:
    together, ids = render_split(world, "test", np.arange(50))
    alone, alone_ids = render_split(world, "test", np.array([37, 3]))
    assert np.array_equal(together[[37, 3]], alone)
    assert np.array_equal(ids[[37, 3]], alone_ids)


@pytest.mark.parametrize("config", [SHAPES32, SHAPES64], ids=lambda c: c.name)
def test_splits_are_disjoint_and_held_out_pairs_are_never_trained(config: ShapesConfig) -> None:
    world = ShapesWorld(config)
    ids = [set(world.split_ids(split)) for split in SPLITS]
    assert all(not a & b for i, a in enumerate(ids) for b in ids[i + 1 :])
    held = {(config.shapes.index(s), config.colors.index(c)) for s, c in config.held_out_pairs}
    _, trained = render_split(world, "train", np.arange(2000))
    objects, _ = world.caption_objects(trained)
    seen = {(int(s), int(c)) for s, c, _ in objects.reshape(-1, 3)}
    assert not seen & held
    objects, _ = world.caption_objects(world.split_ids("held_out"))
    assert all(any((int(s), int(c)) in held for s, c, _ in pair) for pair in objects)


def test_training_has_single_objects_and_tests_have_none(world: ShapesWorld) -> None:
    _, relation = world.caption_objects(world.caption_ids("train", np.arange(20_000)))
    assert np.mean(relation == -1) == pytest.approx(world.config.single_object_share, abs=0.01)
    assert np.all(world.caption_objects(world.split_ids("test"))[1] >= 0)


def test_text_round_trip(world: ShapesWorld) -> None:
    for caption in (0, 5, 100, len(world.caption_tokens) - 1):
        assert np.array_equal(world.tokenize(world.caption_text(caption)), world.caption_tokens[caption])


@pytest.mark.parametrize("text", ["a mauve circle", "red", "a large red circle above"])
def test_unreadable_captions_name_what_is_known(world: ShapesWorld, text: str) -> None:
    with pytest.raises(ValueError, match=r"known words: small, large, red"):
        world.tokenize(text)


@pytest.mark.parametrize("shape", SHAPES)
def test_size_means_area(shape: str) -> None:
    grid = np.linspace(-20, 20, 1601)
    inside = signed_distance(shape, grid[None, :], grid[:, None], np.float64(6.0)) < 0
    assert inside.mean() * 40**2 == pytest.approx(np.pi * 36, rel=0.01)


def test_colors_cannot_be_confused() -> None:
    palette = np.array(list(RGB.values()), dtype=float)
    distance = np.sqrt(((palette[:, None] - palette[None]) ** 2).sum(2)) + 1000 * np.eye(len(palette))
    assert distance.min() > 60
