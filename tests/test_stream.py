"""The order of training images, and images of a world beyond its latent cache."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import order, stream
from bench.data.latents import SHARD_BYTES, TrainingData, fill_cache, images_per_shard
from bench.data.open import open_data
from bench.data.order import image_order
from bench.data.stream import about_stream, cached_images, training_images


def cache(folder: Path, num: int, tokenizer: str, about: dict[str, object] | None = None) -> Path:
    dataset = open_data("shapes32")
    encode = dataset.encoder(tokenizer)
    about = dataset.about() | (about or {})
    fill_cache(folder, num, dataset.row_bytes(tokenizer), encode, lambda _: None, chunk=dataset.chunk, about=about)
    return folder


def test_batches_of_any_size_see_the_same_images_in_the_same_order(tmp_path: Path) -> None:
    data = TrainingData(cache(tmp_path, 48, "autoencoder-fsq"))
    streams = {batch: np.concatenate([data.indices(3, step, batch) for step in range(240 // batch)]) for batch in (4, 16, 48, 80)}
    assert all((seen == streams[4]).all() for seen in streams.values())
    epochs = streams[4].reshape(5, 48)
    assert (np.sort(epochs, axis=1) == np.arange(48)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert (data.indices(4, 0, 48) != epochs[0]).any()


def test_a_cache_is_mapped_once_until_it_is_filled_anew(tmp_path: Path) -> None:
    folder = cache(tmp_path / "latents", 48, "autoencoder-fsq")
    data = training_images(folder)
    assert training_images(folder) is data
    shutil.rmtree(folder)
    anew = training_images(cache(folder, 32, "autoencoder-fsq"))
    assert (len(data), len(anew)) == (48, 32)


def test_the_order_is_that_of_numpys_permutation() -> None:
    """As it was before there were blocks, so that runs keep their images."""
    assert (image_order(7, np.arange(100, 200), 100) == np.random.default_rng([7, 1]).permutation(100)).all()


def test_large_sets_are_shuffled_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "BLOCK", 16)
    seen = image_order(1, np.arange(300), 100)  # 6 blocks of 16 and one of 4
    for epoch in range(3):
        assert sorted(seen[100 * epoch : 100 * (epoch + 1)]) == list(range(100))
    assert (seen[:100] != seen[100:200]).any()
    assert (image_order(1, np.arange(130, 170), 100) == seen[130:170]).all()
    assert len({int(index) // 16 for index in seen[:16]}) <= 2


@pytest.mark.parametrize("tokenizer", ["autoencoder-kl", "autoencoder-fsq"])
def test_images_beyond_the_cache_are_those_that_it_would_hold(tmp_path: Path, tokenizer: str) -> None:
    """Codes and conditions to the bit; posterior moments to a rounding of float16, which the batch decides in the encoder."""
    whole = training_images(cache(tmp_path / "whole", 64, tokenizer))
    about = about_stream(open_data("shapes32"), tokenizer, 64)
    part = training_images(cache(tmp_path / "part", 24, tokenizer, about))
    assert len(part) == len(whole) == 64
    for step in range(9):
        assert (part.indices(0, step, 8) == whole.indices(0, step, 8)).all()
        (tokens, words, _), (expected, expected_words, _) = part.batch(0, step, 8), whole.batch(0, step, 8)
        assert torch.equal(words, expected_words)
        if tokens.dtype == torch.int64:
            assert torch.equal(tokens, expected)
        else:
            torch.testing.assert_close(tokens, expected, rtol=2e-3, atol=2e-3)


def test_a_world_that_changed_is_refused(tmp_path: Path) -> None:
    about = {**about_stream(open_data("shapes32"), "autoencoder-fsq", 64), "data": "shapes32@other"}
    folder = cache(tmp_path, 8, "autoencoder-fsq", about)
    with pytest.raises(ValueError, match="holds images of shapes32@other, and the world is shapes32@"):
        training_images(folder)


def test_the_cache_takes_what_the_disk_allows_in_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    row = 2**20
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda _: usage(4 * SHARD_BYTES))
    assert cached_images(tmp_path / "new", 10, row) == 10
    assert cached_images(tmp_path / "new", 10**6, row) == 2 * images_per_shard(row)
    assert cached_images(tmp_path / "new", 10**6, row, share=0.5) == images_per_shard(row)
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda _: usage(1000))
    assert cached_images(tmp_path / "new", 10**6, row) == images_per_shard(row)
    assert cached_images(tmp_path / "new", 3, row) == 3
