"""What a run needs of a data set, procedural or of images: training images by index, conditions, tokenizers.

It knows no judge, and planning needs neither data nor weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bench.conditioning import ConditionSpace
from bench.config.experiment import Evaluation
from bench.config.tokenizers import AutoencoderConfig, PretrainedConfig, TokenizerConfig
from bench.errors import nearest
from bench.files import file_hash
from bench.paradigm import TokenSpace

if TYPE_CHECKING:
    from bench.data.latents import Encoded
    from bench.evaluate.judge import Judge
    from bench.results.folder import Results
    from bench.tokenizers.base import ImageAutoencoder
    from bench.tokenizers.tokenizer import Tokenizer


class TokenizedData(ABC):
    """A data set with what turns it into tokens and conditions, and what judges images of it."""

    name: str
    fingerprint: str
    """Hash of what decides the training images."""
    resolution: int
    chunk: int
    """Images that are encoded between two reports of progress."""
    views: int
    """Versions of each image that are cached: 2 where it is kept mirrored too."""
    autoencoder_configs: Mapping[str, AutoencoderConfig | PretrainedConfig]
    tokenizer_configs: Mapping[str, TokenizerConfig]

    @property
    def data_id(self) -> str:
        """Name and fingerprint, part of a run's identity."""
        return f"{self.name}@{self.fingerprint}"

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the weights that `paradigm-bench prepare` makes lie."""

    @property
    @abstractmethod
    def prepare_command(self) -> str:
        """What makes them."""

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

    @abstractmethod
    def cache(self, results: Results) -> Path:
        """Where latents of the training images are kept."""

    @abstractmethod
    def check(self, num_images: int) -> None:
        """Refuse what cannot be trained or evaluated on this machine, before hours are spent.

        Raises:
            ValueError: naming the file that is missing and the command that makes or fetches it.
        """

    @abstractmethod
    def encoder(self, tokenizer: str) -> Callable[[range], Encoded]:
        """What encodes a range of training images for the latent cache."""

    def about(self) -> dict[str, Any]:
        """What the latent cache's index says of its content."""
        return {"data": self.data_id}

    def max_skipped(self, num_images: int) -> int:
        """How many of the training images may be unreadable."""
        return 0

    @abstractmethod
    def protocol(self, evaluation: Evaluation) -> str:
        """Hash of what decides a quality number besides the model."""

    @abstractmethod
    def judge(self, settings: Evaluation, results: Results) -> Judge:
        """What scores generated images; loads its networks."""

    def weights(self, part: str) -> Path:
        """The file of a part's weights that the suite made.

        Raises:
            ValueError: when it is not on this machine, naming the command that makes it.
        """
        path = self.folder / f"{part}.safetensors"
        if not path.exists():
            raise ValueError(f"{path} is missing; make it with `{self.prepare_command} --part {part}`")
        return path

    def check_tokenizers(self, names: Iterable[str]) -> None:
        """Make sure of the tokenizers' weights, which a run's identity holds; fetches them where downloads are allowed.

        Raises:
            ValueError: naming the file that is missing and the command that makes or fetches it.
        """
        for name in names:
            if not self.tokenizer_hash(name):
                self.autoencoder(self.tokenizer_config(name).part)

    def hash(self, part: str) -> str:
        """Short hash of a part's weights; empty when they are not made yet (planning needs none)."""
        return file_hash(self.folder / f"{part}.safetensors")

    def autoencoder(self, part: str) -> ImageAutoencoder:
        """An autoencoder that the suite trained, frozen."""
        from bench.tokenizers.autoencoder import Autoencoder  # imported late: planning needs no networks

        return Autoencoder.load(self.weights(part))

    def tokenizer_config(self, name: str) -> TokenizerConfig:
        """Which tokens a tokenizer's name means.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in self.tokenizer_configs:
            raise ValueError(f"unknown tokenizer {name!r}; {nearest(name, list(self.tokenizer_configs))}")
        return self.tokenizer_configs[name]

    def autoencoder_config(self, part: str) -> AutoencoderConfig | PretrainedConfig:
        """An autoencoder's sizes, known without its weights.

        Raises:
            ValueError: for an unknown name.
        """
        if part not in self.autoencoder_configs:
            raise ValueError(f"unknown autoencoder {part!r}; {nearest(part, list(self.autoencoder_configs))}")
        return self.autoencoder_configs[part]

    def space(self, tokenizer: str) -> TokenSpace:
        """A tokenizer's token space, known without its weights."""
        config = self.tokenizer_config(tokenizer)
        return config.space(self.autoencoder_config(config.part))

    def tokenizer(self, name: str) -> Tokenizer:
        """A tokenizer with its weights, frozen."""
        from bench.tokenizers.tokenizer import Tokenizer

        config = self.tokenizer_config(name)
        return Tokenizer(self.autoencoder(config.part), config)

    def tokenizer_hash(self, name: str) -> str:
        """Short hash of a tokenizer's weights; empty when they are not on this machine."""
        return self.hash(self.tokenizer_config(name).part)

    def stored(self, tokens: Tensor, tokenizer: str) -> np.ndarray:
        """Tokens (n, ...) as the latent cache keeps them: moments in float16, codes in the smallest type that holds them."""
        return tokens.cpu().numpy().astype(self.stored_type(tokenizer))

    def stored_type(self, tokenizer: str) -> np.dtype[Any]:
        """Number type of a tokenizer's tokens in the latent cache."""
        space = self.space(tokenizer)
        if space.kind == "latents":
            return np.dtype(np.float16)
        return np.dtype(np.uint16 if space.vocabulary <= 2**16 else np.int32)

    def row_bytes(self, tokenizer: str) -> int:
        """What one training image takes in the latent cache."""
        space, conditions = self.space(tokenizer), self.conditions
        token = self.stored_type(tokenizer).itemsize * (2 * space.channels if space.kind == "latents" else 1)
        word = 2 * conditions.feature_dim if conditions.feature_dim else 4
        return self.views * space.num_tokens * token + conditions.num_tokens * word
