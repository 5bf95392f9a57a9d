"""A data set of images as tokens: rows read by `datasets`, pretrained or own autoencoders, frozen text encoders.

What is made once per data set (latents, whitening, the suite's own networks) lies in one folder that all its experiments share:
PARADIGM_BENCH_CACHE, or ~/.cache/paradigm-bench; weights that ship with the package come first.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.conditioning import ConditionSpace
from bench.config.data import ImageData
from bench.config.tokenizers import PluginConfig, PretrainedConfig, TokenizerConfig
from bench.data.base import TokenizedData, cached_features
from bench.data.image_files import ImageSet
from bench.data.latents import Encoded
from bench.data.text_encoder import TextEncoder
from bench.errors import nearest
from bench.files import write_file
from bench.hub import cache_root
from bench.model import device_type
from bench.tokenizers.base import ImageAutoencoder
from bench.tokenizers.plugin import load_plugin
from bench.tokenizers.pretrained import load_pretrained, pretrained_hash
from bench.tokenizers.tokenizer import Tokenizer

ENCODED_AT_ONCE = 32
"""Images in one pass of an autoencoder: 256 x 256 pixels of a KL-16 then take about 4 GB."""
WHITENING_IMAGES = 2048
"""Images of the training split that latents' mean and standard deviation are measured on."""
SPREAD_SEED = 0
"""Of the permutation that spreads a choice of images over a data set that may be sorted by class."""


class TokenizedImages(TokenizedData):
    """Everything of a data set of images that a run needs."""

    chunk = 256

    def __init__(self, data: ImageData) -> None:
        self.data = data
        self.name, self.resolution = data.name, data.resolution
        self.views = 2 if data.flip else 1
        decides = asdict(data)
        for name in ("name", "path", "evaluation_split", "max_corrupt", "autoencoders", "tokenizers", "judge"):
            del decides[name]
        self.fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        self.autoencoder_configs = {
            name: replace(config, resolution=data.resolution) for name, config in data.autoencoders.items()
        }
        self.tokenizer_configs = {name: TokenizerConfig(part=name) for name in data.autoencoders} | dict(data.tokenizers)
        self.device = device_type()

    @property
    def folder(self) -> Path:
        shipped = Path(__file__).parent.parent / "weights" / self.cache_folder.name
        return shipped if shipped.is_dir() else self.cache_folder

    @property
    def cache_folder(self) -> Path:
        """Where latents and whitening lie, which are never shipped."""
        return cache_root() / f"{self.name}-{self.fingerprint}"

    @property
    def prepare_command(self) -> str:
        place = f" --data {self.data.path}" if self.data.path else ""
        return f"paradigm-bench prepare --experiment <the experiment>{place}"

    @property
    def conditions(self) -> ConditionSpace:
        text = self.data.text
        if text is None:
            return ConditionSpace(num_tokens=1, vocabulary=self.data.num_classes)
        return ConditionSpace(num_tokens=text.num_tokens, feature_dim=text.feature_dim)

    @cached_property
    def training_set(self) -> ImageSet:
        """The training split."""
        return ImageSet(self.data, self.data.split)

    @cached_property
    def evaluation_set(self) -> ImageSet:
        """Where evaluation captions and reference images come from."""
        split = self.data.evaluation_split
        return ImageSet(self.data, split) if split and split != self.data.split else self.training_set

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The frozen text encoder of a captioned data set."""
        assert self.data.text is not None
        return TextEncoder(self.data.text, self.device)

    def tokens_of(self, conditions: list[int | str]) -> Tensor:
        """Classes or captions to condition tokens (n, 1) int64 or (n, M, F) float32."""
        if self.data.text is None:
            return torch.tensor([int(c) for c in conditions], dtype=torch.int64).view(-1, 1)
        return self.text_encoder([str(c) for c in conditions]).cpu()

    def read_condition(self, text: str) -> Tensor:
        if self.data.text is not None:
            return self.tokens_of([text])
        names = self.class_names
        if text in names:
            return self.tokens_of([names.index(text)])
        if text.isdigit() and int(text) < len(names):
            return self.tokens_of([int(text)])
        raise ValueError(f"data {self.name} has no class {text!r}; {nearest(text, names)}, or a number below {len(names)}")

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the classes, from the data where it has any."""
        return self.training_set.class_names

    def cache(self, results_cache: Path) -> Path:
        return self.cache_folder

    def check(self, num_images: int) -> None:
        """Opens the data, whose columns, classes and size must be as stated, and the text encoder."""
        if self.data.text is not None:
            _ = self.text_encoder
        if len(self.training_set) < num_images:
            raise ValueError(
                f"data {self.name} has {len(self.training_set)} images in split {self.data.split!r}, the experiment says "
                f"num_training_images={num_images}; correct the experiment's recipe"
            )

    def about(self) -> dict[str, Any]:
        return {**super().about(), "content": self.training_set.fingerprint()}

    def max_skipped(self, num_images: int) -> int:
        return int(self.data.max_corrupt * num_images)

    def pool(self) -> ThreadPoolExecutor:
        """Threads that decode images; Pillow works outside Python's lock."""
        return ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def spread(self, images: ImageSet, start: int, stop: int) -> np.ndarray:
        """Indices (n,) at places start .. stop - 1 of a fixed permutation of a split."""
        return np.random.default_rng(SPREAD_SEED).permutation(len(images))[start:stop]

    def autoencoder(self, name: str) -> ImageAutoencoder:
        config = self.autoencoder_config(name)
        if isinstance(config, PretrainedConfig):
            model: ImageAutoencoder = load_pretrained(config)
        elif isinstance(config, PluginConfig):
            model = load_plugin(config)
        else:
            return super().autoencoder(name)
        path = self.cache_folder / f"whitening-{name}-{self._weights_hash(name)}.safetensors"
        if path.exists():
            measured = load_file(path)
            model.shift.copy_(measured["shift"])
            model.scale.copy_(measured["scale"])
        else:
            model.to(self.device).measure_whitening(self.whitening_images())
            model.cpu()
            measured = {"shift": model.shift.contiguous(), "scale": model.scale.contiguous()}
            write_file(path, lambda temporary: save_file(measured, temporary))
        return model

    def whitening_images(self) -> Iterator[Tensor]:
        """The first of the spread order."""
        chosen = self.spread(self.training_set, 0, WHITENING_IMAGES)
        for start in range(0, len(chosen), ENCODED_AT_ONCE):
            images, _, _ = self.training_set.read(chosen[start : start + ENCODED_AT_ONCE])
            if len(images):
                yield torch.from_numpy(images).to(self.device)

    def tokenizer(self, name: str) -> Tokenizer:
        return super().tokenizer(name).to(self.device)

    def _weights_hash(self, autoencoder: str) -> str:
        config = self.autoencoder_config(autoencoder)
        if not isinstance(config, PretrainedConfig):
            return self.hash(autoencoder)
        return pretrained_hash(config) or config.sha256[:12]

    def _tokens_hash(self, name: str) -> str:
        """Hash of the weights and of how tokens are made of them; empty when the weights are not on this machine."""
        config = self.tokenizer_config(name)
        autoencoder, weights = asdict(self.autoencoder_config(config.part)), self._weights_hash(config.part)
        for key in ("source", "sha256", "period"):  # photographs are not made of fields
            autoencoder.pop(key, None)
        if not autoencoder.get("scales"):  # as before there were any
            autoencoder.pop("scales", None)
        tokens = {key: value for key, value in asdict(config).items() if key != "features"}
        content = json.dumps([weights, autoencoder, tokens], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12] if weights else ""

    def encoder(self, tokenizer: str) -> Callable[[range], Encoded]:
        return self._encoder(tokenizer, self.training_set)

    def validation_encoder(self, tokenizer: str, num_training_images: int) -> tuple[int, Callable[[range], Encoded]]:
        """The evaluation split's, from the end of its spread order, whose beginning the test's reference takes; where there is no
        such split, those of the training split that training leaves out."""
        images = self.evaluation_set
        chosen = self.spread(images, 0, len(images))[::-1]
        if images is self.training_set:
            chosen = chosen[chosen >= num_training_images]
        return len(chosen), self._encoder(tokenizer, images, chosen)

    def _encoder(self, tokenizer: str, source: ImageSet, chosen: np.ndarray | None = None) -> Callable[[range], Encoded]:
        """What encodes a range of a split's images, or of the chosen ones (n,)."""
        model, pool, space, conditions = self.tokenizer(tokenizer), self.pool(), self.space(tokenizer), self.conditions
        condition_type = np.float16 if conditions.feature_dim else np.int32

        @torch.inference_mode()
        def encode(indices: range) -> Encoded:
            images, found, skipped = source.read(indices if chosen is None else chosen[indices], pool.map)
            tokens, condition_tokens, features = [], [], []
            for start in range(0, len(images), ENCODED_AT_ONCE):
                pixels = torch.from_numpy(images[start : start + ENCODED_AT_ONCE]).to(self.device)
                views = [pixels, pixels.flip(3)][: self.views]
                tokens.append(np.stack([self.cached_tokens(model.encode(view), tokenizer) for view in views], axis=1))
                said = [kept for view in views if (kept := cached_features(model.frozen_features(view))) is not None]
                features += [np.stack(said, axis=1)] if said else []
                asked = self.tokens_of(found[start : start + ENCODED_AT_ONCE])
                condition_tokens.append(asked.numpy().astype(condition_type))
            if tokens:
                beside = np.concatenate(features) if features else None
                return Encoded(np.concatenate(tokens), np.concatenate(condition_tokens), skipped, beside)
            shape = (space.num_tokens, 2 * space.channels) if space.kind == "latents" else (space.num_tokens,)
            channels = (conditions.feature_dim,) if conditions.feature_dim else ()
            nothing = np.empty((0, conditions.num_tokens, *channels), condition_type)
            empty = np.empty((0, self.views, *shape), self.cached_type(tokenizer))
            if space.features is None:
                return Encoded(empty, nothing, skipped)
            vectors = (space.features.num_vectors, space.features.channels)
            return Encoded(empty, nothing, skipped, np.empty((0, self.views, *vectors), np.float16))

        return encode
