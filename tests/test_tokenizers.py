"""The tokenizers read from the twin autoencoders: round trips, grouping, latents before quantization."""

import numpy as np
import pytest
import torch

from bench.config.tokenizers import TOKENIZERS, AutoencoderConfig, TokenizerConfig
from bench.data.shapes_data import TokenizedShapes
from bench.data.shapes_render import render_split
from bench.tokenizers.autoencoder import Autoencoder
from bench.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def dataset() -> TokenizedShapes:
    return TokenizedShapes("shapes32")


@pytest.fixture(scope="module")
def images(dataset: TokenizedShapes) -> torch.Tensor:
    return torch.from_numpy(render_split(dataset.world, "test", np.arange(256))[0])


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_tokens_fit_their_space(dataset: TokenizedShapes, images: torch.Tensor, name: str) -> None:
    tokenizer, space = dataset.tokenizer(name), dataset.space(name)
    with torch.inference_mode():
        stored = tokenizer.encode(images)
        rebuilt = tokenizer.reconstruct(images)
    if space.kind == "codes":
        assert stored.shape == (256, space.num_tokens)
        assert 0 <= int(stored.min()) <= int(stored.max()) < space.vocabulary
    else:
        assert stored.shape == (256, space.num_tokens, 2 * space.channels)
    assert rebuilt.dtype == torch.uint8
    assert (rebuilt.float() - images.float()).abs().mean() < 5


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name not in ("autoencoder-fsq", "pixels")])
def test_latents_are_whitened(dataset: TokenizedShapes, images: torch.Tensor, name: str) -> None:
    """Mean 0 and variance 1 per channel over posterior samples."""
    tokenizer = dataset.tokenizer(name)
    with torch.inference_mode():
        mean, std = tokenizer.encode(images).chunk(2, dim=2)
    variance = mean.var((0, 1)) + std.square().mean((0, 1))
    assert mean.mean((0, 1)).abs().max() < 0.35
    assert variance.mean() == pytest.approx(1.0, abs=0.1)


def test_grouping_is_a_rearrangement(dataset: TokenizedShapes, images: torch.Tensor) -> None:
    """Group (row, column) holds its 2 x 2 tokens in raster order, and decoding takes them apart again."""
    plain, grouped = dataset.tokenizer("autoencoder-kl"), dataset.tokenizer("autoencoder-kl-grouped")
    with torch.inference_mode():
        fine = plain.encode(images).chunk(2, dim=2)[0].unflatten(1, (4, 4))
        coarse = grouped.encode(images).chunk(2, dim=2)[0].unflatten(1, (2, 2))
        assert torch.equal(grouped.reconstruct(images), plain.reconstruct(images))
    for row, column in ((0, 0), (0, 1), (1, 0)):
        block = fine[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)
        assert torch.equal(coarse[:, row, column], block)


def test_latents_before_quantization_decode_to_the_same_image(dataset: TokenizedShapes, images: torch.Tensor) -> None:
    with torch.inference_mode():
        before = dataset.tokenizer("autoencoder-fsq-latents").reconstruct(images)
        after = dataset.tokenizer("autoencoder-fsq").reconstruct(images)
    differing = (before != after).flatten(1).any(1).float().mean()
    assert float(differing) < 0.02  # a latent on a rounding edge may fall to the other side


def test_a_stride_8_autoencoder_groups_to_the_published_grid() -> None:
    """KL-8 at 256 pixels: 32 x 32 latents of 4 channels become 16 x 16 tokens of 16 (Li et al. 2024, table 2)."""
    config = AutoencoderConfig(bottleneck="kl", resolution=256, patch=8, channels=4, width=16)
    tokenizer = Tokenizer(Autoencoder(config), TokenizerConfig(part="autoencoder-kl", group=2))
    assert (tokenizer.space.grid, tokenizer.space.channels) == (16, 16)
    images = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    with torch.no_grad():
        assert tokenizer.encode(images).shape == (1, 256, 32)
        assert tokenizer.reconstruct(images).shape == images.shape


def test_unknown_tokenizers_get_the_nearest(dataset: TokenizedShapes) -> None:
    with pytest.raises(ValueError, match="did you mean 'autoencoder-kl'"):
        dataset.space("autoencoder-k")
