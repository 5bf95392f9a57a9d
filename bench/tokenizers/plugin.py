"""Autoencoders of other packages, by entry point (bench/registry.py).

A class below `PluginAutoencoder` says its sizes at a resolution, which planning reads without weights, and loads itself. The
suite measures the whitening of continuous latents on the data's own training images. Package, version, source and the hash of
the weights are part of the run_id.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import replace
from typing import Self

from torch import Tensor

from bench.config.tokenizers import PluginConfig
from bench.registry import TOKENIZER_GROUP, distribution, import_class, registered, source_identity
from bench.tokenizers.base import ImageAutoencoder


class PluginAutoencoder(ImageAutoencoder):
    """What another package's autoencoder offers beside the methods of every autoencoder."""

    @classmethod
    @abstractmethod
    def sizes(cls, resolution: int) -> PluginConfig:
        """Its sizes for images of so many pixels a side.

        Raises:
            ValueError: for a resolution that it cannot do, naming those that it can.
        """

    @classmethod
    @abstractmethod
    def load(cls, config: PluginConfig) -> Self:
        """The network with its weights, on the CPU."""

    @classmethod
    def code_vectors(cls) -> Tensor:
        """What the codes stand for, (V, C) float32 on the CPU, where `sizes` names several scales: paradigms show the sum of a
        grid's vectors and the coarser ones' to the next grid."""
        raise NotImplementedError(f"{cls.__name__} has codes of several scales and says no code_vectors")

    @classmethod
    @abstractmethod
    def weights_hash(cls) -> str:
        """What names its weights: the first digits of their SHA-256, or a constant where there are none."""


def plugin_names() -> dict[str, str]:
    """Every tokenizer that a package registers, with its "module:Class".

    Raises:
        ValueError: when two packages claim one name.
    """
    return registered(TOKENIZER_GROUP, "tokenizer", {})


def plugin_class(name: str) -> type[PluginAutoencoder]:
    """Import a registered tokenizer.

    Raises:
        ValueError: for one that fails on import, or that is no PluginAutoencoder.
    """
    return import_class("tokenizer", name, plugin_names()[name], PluginAutoencoder)  # type: ignore[type-abstract]


def plugin_sizes(name: str, resolution: int) -> PluginConfig:
    """A registered tokenizer's sizes at a resolution.

    Raises:
        ValueError: for a resolution that it cannot do, or sizes that are none.
    """
    found = plugin_class(name).sizes(resolution)
    if found.resolution != resolution or min(found.grid, found.num_channels) < 1 or found.num_codes < 0:
        raise ValueError(f"tokenizer {name!r} says that it has {found} at {resolution} pixels; a grid and channels are needed")
    return replace(found, name=name)


def load_plugin(config: PluginConfig) -> PluginAutoencoder:
    """A registered tokenizer with its weights, frozen."""
    return plugin_class(config.name).load(config).eval().requires_grad_(False)


def plugin_hash(name: str) -> str:
    """Short hash of a registered tokenizer's package, version, source and weights."""
    cls = plugin_class(name)
    content = f"{source_identity(cls, distribution(name, TOKENIZER_GROUP))} {cls.weights_hash()}"
    return hashlib.sha256(content.encode()).hexdigest()[:12]
