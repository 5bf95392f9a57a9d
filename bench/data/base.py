"""What a run needs of a data set, procedural or of images: training images by index, conditions, tokenizers.

It knows no judge, and planning needs neither data nor weights.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bench.conditioning import ConditionSpace
from bench.config.tokenizers import ImageAutoencoderConfig, PixelConfig, PluginConfig, TokenizerConfig, split_features
from bench.data.latents import Encoded
from bench.errors import nearest
from bench.files import file_hash
from bench.paradigm import FeatureSpace, TokenSpace
from bench.tokenizers.autoencoder import Autoencoder
from bench.tokenizers.base import ImageAutoencoder
from bench.tokenizers.pixels import Pixels
from bench.tokenizers.plugin import load_plugin, plugin_hash, plugin_names, plugin_sizes
from bench.tokenizers.tokenizer import Tokenizer, token_space

NO_WEIGHTS = "raw"
"""In place of the hash of weights, where a tokenizer has none."""


class TokenizedData(ABC):
    """A data set with what turns it into tokens and conditions."""

    name: str
    fingerprint: str
    """Hash of what decides the training images."""
    resolution: int
    chunk: int
    """Images that are encoded between two reports of progress."""
    views: int
    """Versions of each image that are cached: 2 where it is kept mirrored too."""
    endless: bool = False
    """Whether training images are rendered as often as anybody wants, so that not all need lie in a cache."""
    autoencoder_configs: Mapping[str, ImageAutoencoderConfig]
    tokenizer_configs: Mapping[str, TokenizerConfig]

    @property
    def data_id(self) -> str:
        """Name and fingerprint, part of a run's identity."""
        return f"{self.name}@{self.fingerprint}"

    # -- conditions

    @property
    @abstractmethod
    def conditions(self) -> ConditionSpace:
        """What condition tokens are."""

    @abstractmethod
    def read_condition(self, text: str) -> Tensor:
        """Condition tokens (1, M) or (1, M, F) of what a user asks for.

        Raises:
            ValueError: for words or classes that the data does not have.
        """

    # -- training images

    @abstractmethod
    def check(self, num_images: int) -> None:
        """Refuse data that this machine lacks or that is not as stated, before hours are spent.

        Raises:
            ValueError: naming what is missing or differs, and what to do.
        """

    @abstractmethod
    def encoder(self, tokenizer: str) -> Callable[[range], Encoded]:
        """What encodes a range of training images for the latent cache."""

    @abstractmethod
    def validation_encoder(self, tokenizer: str, num_training_images: int) -> tuple[int, Callable[[range], Encoded]]:
        """How many images there are that training leaves out and no test image is compared with first, and what encodes a range
        of them.

        Args:
            num_training_images: the first images of the training split, which runs train on.
        """

    def about(self) -> dict[str, Any]:
        """What the latent cache's index says of its content."""
        return {"data": self.data_id}

    def max_skipped(self, num_images: int) -> int:
        """How many of the training images may be unreadable."""
        return 0

    # -- files

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the weights that `paradigm-bench prepare` makes lie."""

    @property
    @abstractmethod
    def prepare_command(self) -> str:
        """What makes them."""

    def weights_file(self, network: str) -> Path:
        """Where a network's weights lie, made or not."""
        return self.folder / f"{network}.safetensors"

    def weights(self, network: str) -> Path:
        """The file of a network's weights that the suite made.

        Raises:
            ValueError: when it is not on this machine, naming the command that makes it.
        """
        path = self.weights_file(network)
        if not path.exists():
            raise ValueError(f"{path} is missing; make it with `{self.prepare_command} --part {network}`")
        return path

    def hash(self, network: str) -> str:
        """Short hash of a network's weights; empty when they are not made yet (planning needs none)."""
        if isinstance(self.autoencoder_configs.get(network), PixelConfig):
            return NO_WEIGHTS
        if network not in self.autoencoder_configs and network in plugin_names():
            return plugin_hash(network)
        return file_hash(self.weights_file(network))

    def cache(self, results_cache: Path) -> Path:
        """Where what is made once of the images is kept: in the cache of a results folder, unless all experiments share it."""
        return results_cache

    def latent_folder(self, results_cache: Path, tokenizer: str, num_images: int) -> Path:
        """The cache of the training images as a tokenizer encodes them."""
        name = f"latents-{self.fingerprint}-{tokenizer}-{self.tokenizer_hash(tokenizer)}-{num_images}"
        return self.cache(results_cache) / name

    # -- tokenizers

    def check_tokenizers(self, names: Iterable[str]) -> None:
        """Make sure of the tokenizers' weights, which a run's identity holds; fetches them where downloads are allowed.

        Raises:
            ValueError: naming the file that is missing and the command that makes or fetches it.
        """
        for name in {part for given in names for part in split_features(given) if part}:
            if not self.tokenizer_hash(name):
                self.autoencoder(self.tokenizer_config(name).part)

    def autoencoder_config(self, name: str) -> ImageAutoencoderConfig:
        """An autoencoder's sizes, known without its weights.

        Raises:
            ValueError: for an unknown name.
        """
        if name in self.autoencoder_configs:
            return self.autoencoder_configs[name]
        if name not in (others := plugin_names()):
            raise ValueError(f"unknown autoencoder {name!r}; {nearest(name, [*self.autoencoder_configs, *others])}")
        return plugin_sizes(name, self.resolution)

    def autoencoder(self, name: str) -> ImageAutoencoder:
        """An autoencoder with its weights, frozen: pixels, another package's, or one that the suite trained."""
        config = self.autoencoder_config(name)
        if isinstance(config, PluginConfig):
            model = load_plugin(config)
            if not model.discrete:
                model.measure_whitening(self.whitening_images())
            return model
        return Pixels(config) if isinstance(config, PixelConfig) else Autoencoder.load(self.weights(name))

    @abstractmethod
    def whitening_images(self) -> Iterable[Tensor]:
        """Batches of training images (B, 3, H, H) uint8, on which latents of networks from elsewhere are whitened."""

    def tokenizer_config(self, name: str) -> TokenizerConfig:
        """Which tokens a tokenizer's name means; "a+b" are those of a, and features beside them from the latents of b.

        Raises:
            ValueError: for an unknown name, or features that are codes.
        """
        tokens, features = split_features(name)
        if features:
            if self.space(features).kind != "latents":
                raise ValueError(f"tokenizer {name!r}: {features!r} gives codes; features are latents of another tokenizer")
            return replace(self.tokenizer_config(tokens), features=features)
        if name in self.tokenizer_configs:
            return self.tokenizer_configs[name]
        if name not in (others := plugin_names()):
            raise ValueError(f"unknown tokenizer {name!r}; {nearest(name, [*self.tokenizer_configs, *others])}")
        return TokenizerConfig(part=name)

    def tokenizer(self, name: str) -> Tokenizer:
        """A tokenizer with its weights, frozen."""
        config = self.tokenizer_config(name)
        return Tokenizer(self.autoencoder(config.part), config, self.tokenizer(config.features) if config.features else None)

    def tokenizer_hash(self, name: str) -> str:
        """Short hash of a tokenizer's weights, those of its features included; empty when some are not on this machine."""
        if not self.tokenizer_config(name).features:
            return self._tokens_hash(name)
        both = [self.tokenizer_hash(part) for part in split_features(name)]
        return hashlib.sha256("+".join(both).encode()).hexdigest()[:12] if all(both) else ""

    def _tokens_hash(self, name: str) -> str:
        """The same of a tokenizer without features."""
        return self.hash(self.tokenizer_config(name).part)

    def space(self, tokenizer: str) -> TokenSpace:
        """A tokenizer's token space, known without its weights."""
        config = self.tokenizer_config(tokenizer)
        space = token_space(config, self.autoencoder_config(config.part))
        return replace(space, features=self._feature_space(config.features)) if config.features else space

    def _feature_space(self, tokenizer: str) -> FeatureSpace:
        """A tokenizer's latents as features, and what its network costs, which is counted once."""
        if tokenizer not in self._features:
            space = self.space(tokenizer)
            flops = self.autoencoder(self.tokenizer_config(tokenizer).part).encoder_flops()
            self._features[tokenizer] = FeatureSpace(grid=space.grid, channels=space.channels, flops=flops)
        return self._features[tokenizer]

    @cached_property
    def _features(self) -> dict[str, FeatureSpace]:
        return {}

    def cached_tokens(self, tokens: Tensor, tokenizer: str) -> np.ndarray:
        """Tokens (n, ...) as the latent cache keeps them: moments in float16, codes in the smallest type that holds them."""
        return tokens.cpu().numpy().astype(self.cached_type(tokenizer))

    def cached_type(self, tokenizer: str) -> np.dtype[Any]:
        """Number type of a tokenizer's tokens in the latent cache."""
        space = self.space(tokenizer)
        if space.kind == "latents":
            return np.dtype(np.float16)
        return np.dtype(np.uint16 if space.vocabulary <= 2**16 else np.int32)

    def row_bytes(self, tokenizer: str) -> int:
        """What one training image takes in the latent cache, in bytes."""
        space, conditions = self.space(tokenizer), self.conditions
        token = self.cached_type(tokenizer).itemsize * (2 * space.channels if space.kind == "latents" else 1)
        condition_token = 2 * conditions.feature_dim if conditions.feature_dim else 4
        features = 2 * space.features.num_vectors * space.features.channels if space.features else 0
        return self.views * (space.num_tokens * token + features) + conditions.num_tokens * condition_token


def cached_features(features: Tensor | None) -> np.ndarray | None:
    """Features (n, P, F), where there are any, as the latent cache keeps them, float16."""
    return None if features is None else features.cpu().numpy().astype(np.float16)
