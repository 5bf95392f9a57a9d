"""The sprites world: its alphabet is a code, its kinds follow Zipf's law, its images are functions of their index."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from bench.data.sprites_alphabet import MIN_CELLS, NAMES, NUM_KINDS, alphabet
from bench.data.sprites_config import SPRITES40, SPRITES80, SPRITES160, Captions, SpritesConfig
from bench.data.sprites_render import render_split, sprite_mask
from bench.data.sprites_world import NUM_DECILES, SPRITE_SPLITS, SpritesWorld
from bench.evaluate.sprites_verifier import searched
from bench.results.columns import DECILES

LEVELS = [SPRITES40, SPRITES80, SPRITES160]
level = pytest.mark.parametrize("config", LEVELS, ids=lambda c: c.name)

FIRST_100_TRAINING_IMAGES = {
    "sprites40": "2e668adae790f2ef8d1f1662658119ddf5448691b46a095c1c892d152b00abd3",
    "sprites80": "39ebcf0704b4b8071d8513f31e85b2f3e4fd8577f1c5f1ac0a614871406b3438",
    "sprites160": "d47024eccc084838c5e8f1d2411dedd5fc326a75828d07ae6168276daeb5d632",
}
"""SHA-256 of images and caption tokens (little-endian int64) of version 1. A change here is a new version, not a new constant."""


@level
def test_first_images_and_captions_are_bit_stable(config: SpritesConfig) -> None:
    world = SpritesWorld(config)
    images, captions = render_split(world, "train", np.arange(100))
    content = images.tobytes() + world.tokens(captions).astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest() == FIRST_100_TRAINING_IMAGES[config.name]


@level
@pytest.mark.parametrize("split", SPRITE_SPLITS)
def test_an_image_depends_on_its_index_alone(config: SpritesConfig, split: str) -> None:
    world = SpritesWorld(config)
    together, captions = render_split(world, split, np.arange(30))
    alone, alone_captions = render_split(world, split, np.array([17, 3]))
    assert np.array_equal(together[[17, 3]], alone)
    assert np.array_equal(world.tokens(captions)[[17, 3]], world.tokens(alone_captions))


def test_kinds_differ_by_the_code_distance_wherever_they_stand() -> None:
    """Also shifted, and between the two sizes: no picture within the verifier's radius of one is within that of another."""
    kinds = alphabet()
    assert kinds.shape == (NUM_KINDS, 5, 5)
    assert len(set(NAMES)) == NUM_KINDS
    assert np.array_equal(kinds, kinds[:, :, ::-1])
    flat = kinds.reshape(NUM_KINDS, -1).astype(int)
    distance = flat.sum(1)[:, None] + flat.sum(1) - 2 * flat @ flat.T
    assert distance[~np.eye(NUM_KINDS, dtype=bool)].min() == MIN_CELLS
    masks = sprite_mask(SPRITES40).astype(np.float32)
    placed = {
        (size, top, left): np.roll(masks[size], (top, left), (1, 2)).reshape(NUM_KINDS, -1)
        for size in range(2)
        for top in searched(SPRITES40, size)
        for left in searched(SPRITES40, size)
    }
    first = {size: min(key for key in placed if key[0] == size) for size in range(2)}
    for key, other in placed.items():
        for size, reference in ((s, placed[first[s]]) for s in range(2)):
            area = reference.sum(1)[:, None] + other.sum(1) - 2 * reference @ other.T
            if key[0] == size:
                area[np.eye(NUM_KINDS, dtype=bool)] = np.inf  # the same sprite a pixel aside is the same sprite
            radius = MIN_CELLS / 2 * (SPRITES40.cell_pixels[size] ** 2 + SPRITES40.cell_pixels[key[0]] ** 2)
            assert area.min() >= radius


@level
def test_splits_share_no_caption_and_held_out_pairs_are_never_trained(config: SpritesConfig) -> None:
    world = SpritesWorld(config)
    seen = {split: world.draw(split, np.arange(4000)) for split in SPRITE_SPLITS}
    words = {split: {row.tobytes() for row in world.tokens(captions)} for split, captions in seen.items()}
    for split in ("validation", "test", "held_out", "uniform"):
        assert not words["train"] & words[split], split
    assert not words["validation"] & (words["test"] | words["uniform"])
    for split, captions in seen.items():
        held = (captions.color == world.held_out_color(captions.kind)) & captions.named
        assert held.any(1).all() if split == "held_out" else not held.any()
    levels = world.held_out_levels(seen["held_out"])
    assert np.array_equal(levels["heldout_one"], ~levels["heldout_both"])
    assert levels["heldout_both"].mean() == pytest.approx(0.5, abs=0.03)


@level
def test_training_kinds_follow_zipfs_law(config: SpritesConfig) -> None:
    """Counts of 60,000 phrases against k^-1: chi-squared per degree of freedom; uniform captions are flat."""
    world = SpritesWorld(config)
    law = np.arange(1, 257) ** -1.0
    for split, wanted in (("train", law / law.sum()), ("test", law / law.sum()), ("uniform", np.full(256, 1 / 256))):
        captions = world.draw(split, np.arange(20_000))
        counts = np.bincount(captions.kind[captions.named], minlength=256)
        expected = wanted * counts.sum()
        assert ((counts - expected) ** 2 / expected).mean() < 1.5, split


def test_the_exponent_is_a_parameter() -> None:
    flat = SpritesWorld(replace(SPRITES40, zipf_exponent=0.0))
    steep = SpritesWorld(replace(SPRITES40, zipf_exponent=2.0))
    assert np.allclose(flat.frequencies, 1 / 256)
    assert steep.frequencies[0] / steep.frequencies[9] == pytest.approx(100, rel=1e-4)
    assert len({world.fingerprint for world in (flat, steep, SpritesWorld(SPRITES40))}) == 3


def test_deciles_hold_a_tenth_of_the_kinds_each_the_frequent_ones_first() -> None:
    world = SpritesWorld(SPRITES40)
    assert np.bincount(world.deciles).tolist() == [26, 26, 25, 26, 25, 26, 26, 25, 26, 25]
    assert (np.diff(world.frequencies) < 0).all()
    assert len(DECILES) == NUM_DECILES


@level
def test_numbers_of_objects(config: SpritesConfig) -> None:
    captions = SpritesWorld(config).draw("train", np.arange(5000))
    objects, phrases = captions.number.sum(1), captions.named.sum(1)
    assert objects.max() == config.max_objects
    assert objects.min() >= 1
    for number, share in enumerate(config.phrase_shares, start=1):
        assert np.mean(phrases == number) == pytest.approx(share, abs=0.03)


@level
def test_text_round_trip(config: SpritesConfig) -> None:
    world = SpritesWorld(config)
    captions = world.draw("test", np.arange(40))
    for row in range(40):
        assert np.array_equal(world.tokens(world.parse(world.text(captions, row)))[0], world.tokens(captions)[row])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a large mauve babi", "word 3, 'mauve', is no color; known: red, green"),
        ("a large red unicorn", "'unicorn', is no kind"),
        ("a large red", "1 to 2 phrases of 4 words"),
        ("two large red babi above two small blue babi", "at most 2 objects"),
        ("a large red babi near a small blue babi", "'near', is no relation; known: above, left"),
    ],
)
def test_unreadable_captions_say_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="for example") as error:
        SpritesWorld(SPRITES40).parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_captions_are_indexed_like_arrays() -> None:
    captions = SpritesWorld(SPRITES80).draw("train", np.arange(10))
    part = captions[np.array([7, 2])]
    assert isinstance(part, Captions)
    assert len(part) == 2
    assert np.array_equal(part.kind, captions.kind[[7, 2]])
