"""The sprites world's verifier: exact on clean renders, and it says what is wrong."""

from dataclasses import fields, replace

import numpy as np
import pytest

from bench.data.sprites_config import SPRITES40, SPRITES80, SPRITES160, Captions, SpritesConfig
from bench.data.sprites_render import objects, render, render_split
from bench.data.sprites_world import SpritesWorld
from bench.evaluate.sprites_verifier import SpriteVerdict, verify
from bench.prepare.broken_sprites import WORDS, one_word_changed
from bench.prepare.sprites_quality import measure_sprites_verifier

TOLERATED = "one cell of the first object wrong"
"""By design: at a distance of one cell the nearest kind is still the right one."""


def check(found: dict, limit: float) -> None:
    assert max(found["false_rejects"].values()) <= limit, found
    wrong = {name: rate for name, rate in found["accepted"].items() if name != TOLERATED}
    assert max(wrong.values()) <= limit, wrong
    assert found["accepted"][TOLERATED] > 0.95


@pytest.mark.parametrize("config", [SPRITES40, SPRITES80, SPRITES160], ids=lambda c: c.name)
def test_the_verifier_is_exact_on_a_few_renders(config: SpritesConfig) -> None:
    check(measure_sprites_verifier(SpritesWorld(config), 100), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SPRITES40, SPRITES80], ids=lambda c: c.name)
def test_the_verifier_is_exact_on_10000_renders_per_split(config: SpritesConfig) -> None:
    check(measure_sprites_verifier(SpritesWorld(config), 10_000), 1e-3)


@pytest.fixture(scope="module")
def rendered() -> tuple[SpritesWorld, np.ndarray, Captions]:
    world = SpritesWorld(SPRITES80)
    return world, *render_split(world, "test", np.arange(200))


def failing(verdict: SpriteVerdict) -> list[str]:
    """Attributes that fail somewhere."""
    return [name for name, values in verdict.attributes.items() if (values < 1).any()]


@pytest.mark.parametrize(
    ("word", "attributes"),
    [("size", ["size"]), ("color", ["color"]), ("kind", ["shape"]), ("relation", ["shape", "relation"]), ("number", ["count"])],
)
def test_a_wrong_word_fails_in_its_own_attribute(
    rendered: tuple[SpritesWorld, np.ndarray, Captions], word: str, attributes: list[str]
) -> None:
    """A relation or a number that cannot change leaves a wrong kind; a number too many leaves an object without attributes."""
    world, images, captions = rendered
    verdict = verify(world, images, one_word_changed(world, captions, np.random.default_rng(0), word))
    assert not verdict.exact.any()
    assert word in WORDS
    found = failing(verdict)
    assert set(attributes) <= set(found)
    if word in ("size", "color", "kind"):
        assert set(found) <= {*attributes, "relation"}  # equal objects may be told apart by the wrong word alone


def test_a_missing_and_a_doubled_object_are_wrong(rendered: tuple[SpritesWorld, np.ndarray, Captions]) -> None:
    world, images, captions = rendered
    scene = objects(world, captions, np.arange(200), "test")
    keep = np.ones(len(scene.image), dtype=bool)
    keep[np.unique(scene.image, return_index=True)[1]] = False
    parts = {f.name: getattr(scene, f.name) for f in fields(scene)}
    fewer = type(scene)(**{name: v if name == "background" else v[keep] for name, v in parts.items()})
    verdict = verify(world, render(world, fewer), captions)
    assert not verdict.exact.any()
    assert not verdict.attributes["count"].any()
    empty = verify(world, np.full_like(images, 220), captions)
    assert not empty.exact.any()
    assert empty.num_found.max() == 0
    assert empty.attributes["shape"].max() == 0


def test_noise_obeys_nothing(rendered: tuple[SpritesWorld, np.ndarray, Captions]) -> None:
    world, images, captions = rendered
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    verdict = verify(world, noise, captions)
    assert not verdict.exact.any()
    assert not verdict.attributes["shape"].any()


def test_a_sprite_between_two_fields_is_none(rendered: tuple[SpritesWorld, np.ndarray, Captions]) -> None:
    world, images, captions = rendered
    shifted = np.roll(images, SPRITES80.field_pixels // 2, axis=3)
    assert not verify(world, shifted, captions).exact.any()


def test_blur_and_noise_of_an_autoencoder_are_tolerated(rendered: tuple[SpritesWorld, np.ndarray, Captions]) -> None:
    """A third of each pixel's color leaks to its neighbors, and noise of 8 of 255 is added."""
    world, images, captions = rendered
    soft = images.astype(float)
    near = sum(np.roll(soft, shift, axis) for shift in (-1, 1) for axis in (2, 3)) / 4
    noisy = soft * 2 / 3 + near / 3 + np.random.default_rng(0).normal(0, 8, soft.shape)
    assert verify(world, np.clip(np.rint(noisy), 0, 255).astype(np.uint8), captions).exact.mean() > 0.995


def test_phrases_say_which_objects_are_right() -> None:
    world = SpritesWorld(replace(SPRITES80, phrase_shares=(0.0, 0.0, 1.0)))
    images, captions = render_split(world, "uniform", np.arange(100))
    wrong = Captions(**{f.name: getattr(captions, f.name).copy() for f in fields(captions)})
    wrong.kind[:, 1] = (wrong.kind[:, 1] + 128) % 256
    verdict = verify(world, images, wrong)
    distinct = (wrong.kind[:, 1] != captions.kind[:, 0]) & (wrong.kind[:, 1] != captions.kind[:, 2])
    assert distinct.sum() > 90
    assert np.array_equal(verdict.phrases[distinct], np.tile([1.0, 0.0, 1.0], (distinct.sum(), 1)))
