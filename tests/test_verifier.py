import numpy as np
import pytest

from bench.data.shapes_render import render_split
from bench.data.shapes_world import SHAPES64, ShapesWorld
from bench.evaluate.verifier import verify
from bench.prepare.broken_shapes import BREAKERS
from bench.prepare.quality import measure_verifier


@pytest.fixture(scope="module", params=[1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def measured(world: ShapesWorld, request: pytest.FixtureRequest) -> dict:
    return measure_verifier(world, request.param)


def test_false_rejects_on_clean_renders(measured: dict) -> None:
    assert max(measured["false_rejects"].values()) < 1e-3


def test_false_accepts_on_wrong_captions(measured: dict) -> None:
    assert measured["accepted"]["one word of the caption changed"] < 1e-3


@pytest.mark.parametrize("name", [n for n in BREAKERS if "1 pixel" not in n and "2 pixels" not in n])
def test_broken_shapes_are_wrong(measured: dict, name: str) -> None:
    assert measured["accepted"][name] < 0.01


def test_a_seam_shift_of_two_pixels_is_mostly_wrong(measured: dict) -> None:
    assert measured["accepted"]["lower half of the first object shifted by 2 pixels"] < 0.2


def test_the_hard_world_is_verified_too() -> None:
    world = ShapesWorld(SHAPES64)
    images, ids = render_split(world, "held_out", np.arange(1000))
    assert verify(world, images, ids).exact.all()


def test_noise_and_empty_canvas_obey_nothing(world: ShapesWorld) -> None:
    ids = world.split_ids("test")[:200]
    noise = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    assert not verify(world, noise, ids).exact.any()
    empty = verify(world, np.full_like(noise, 220), ids)
    assert not empty.exact.any()
    assert empty.num_found.max() == 0
    assert empty.mean_attributes.max() == 0


def test_attributes_are_told_apart(world: ShapesWorld) -> None:
    """Captions with their objects swapped, where the objects differ in every word: all holds but the relation."""
    tokens = world.caption_tokens
    lookup = {tuple(row): i for i, row in enumerate(tokens)}
    images, ids = render_split(world, "test", np.arange(1000))
    differ = (tokens[ids][:, [0, 1, 2]] != tokens[ids][:, [4, 5, 6]]).all(1)
    assert differ.sum() > 100
    swapped = np.array([lookup[tuple(tokens[i][[4, 5, 6, 3, 0, 1, 2]])] for i in ids[differ]])
    verdict = verify(world, images[differ], swapped)
    assert not verdict.exact.any()
    for name in ("count", "shape", "color", "size"):
        assert verdict.attributes[name].all()
    assert not verdict.attributes["relation"].any()
