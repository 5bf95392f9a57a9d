"""The measuring instrument of a procedural world: its data, tokenizers and evaluator with their hashes, loaded once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.conditioning import ConditionSpace
from bench.config import Evaluation
from bench.data.shapes import SHAPES32, SHAPES64, ShapesWorld
from bench.paradigm import TokenSpace
from bench.registry import nearest
from bench.tokenizers.config import TOKENIZERS, AutoencoderConfig, TokenizerConfig

if TYPE_CHECKING:
    from bench.evaluate.clip import ShapesCLIP
    from bench.evaluate.probe import CaptionProbe
    from bench.tokenizers.autoencoder import Autoencoder
    from bench.tokenizers.tokenizer import Tokenizer

WORLDS = {config.name: config for config in (SHAPES32, SHAPES64)}


def file_hash(path: Path) -> str:
    """First 12 hexadecimal digits of the file's SHA-256; empty when the file is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.exists() else ""


class Instrument:
    """Everything of a world that a run or its evaluation needs."""

    def __init__(self, world: str) -> None:
        if world not in WORLDS:
            raise ValueError(f"unknown world {world!r}; known: {', '.join(WORLDS)}")
        self.world = ShapesWorld(WORLDS[world])

    @property
    def folder(self) -> Path:
        """Where the world's shipped weights lie, inside the package."""
        config = self.world.config
        return Path(__file__).parent / "weights" / f"{config.name}-v{config.generator_version}"

    @property
    def conditions(self) -> ConditionSpace:
        tokens = self.world.caption_tokens
        return ConditionSpace(num_tokens=tokens.shape[1], vocabulary=len(self.world.vocabulary))

    def weights(self, part: str) -> Path:
        """The file of a part's weights.

        Raises:
            ValueError: when it is not on this machine, naming the command that makes it.
        """
        path = self.folder / f"{part}.safetensors"
        if not path.exists():
            name = self.world.config.name
            raise ValueError(f"{path} is missing; make it with `paradigm-bench prepare {name} --part {part}`")
        return path

    def hash(self, part: str) -> str:
        """Short hash of a part's weights; empty when they are not made yet (planning needs none)."""
        return file_hash(self.folder / f"{part}.safetensors")

    def autoencoder_config(self, part: str) -> AutoencoderConfig:
        """The twin's sizes, known without its weights."""
        bottleneck: Literal["kl", "fsq"] = "kl" if part == "autoencoder-kl" else "fsq"
        return AutoencoderConfig(bottleneck=bottleneck, resolution=self.world.config.resolution)

    def autoencoder(self, part: str) -> Autoencoder:
        """The twin with its shipped weights, frozen."""
        from bench.tokenizers.autoencoder import Autoencoder  # imported late: planning needs no networks

        return Autoencoder.load(self.weights(part))

    def tokenizer_config(self, name: str) -> TokenizerConfig:
        """Which tokens a tokenizer's name means.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in TOKENIZERS:
            raise ValueError(f"unknown tokenizer {name!r}; {nearest(name, list(TOKENIZERS))}")
        return TOKENIZERS[name]

    def space(self, tokenizer: str) -> TokenSpace:
        """A tokenizer's token space, known without its weights."""
        config = self.tokenizer_config(tokenizer)
        return config.space(self.autoencoder_config(config.part))

    def tokenizer(self, name: str) -> Tokenizer:
        """A tokenizer with its shipped weights, frozen."""
        from bench.tokenizers.tokenizer import Tokenizer

        config = self.tokenizer_config(name)
        return Tokenizer(self.autoencoder(config.part), config)

    def tokenizer_hash(self, name: str) -> str:
        """Short hash of a tokenizer's weights; empty when they are not made yet."""
        return self.hash(self.tokenizer_config(name).part)

    @cached_property
    def clip(self) -> ShapesCLIP:
        """The small CLIP with its shipped weights, frozen."""
        from bench.evaluate.clip import ShapesCLIP

        return ShapesCLIP.load(self.weights("clip"))

    @cached_property
    def probe(self) -> CaptionProbe:
        """The caption probe with its shipped weights, frozen."""
        from bench.evaluate.probe import CaptionProbe

        return CaptionProbe.load(self.weights("probe"))

    def protocol(self, evaluation: Evaluation) -> str:
        """Hash of what decides a quality number besides the model."""
        content = [self.world.fingerprint, self.hash("clip"), self.hash("probe"), asdict(evaluation)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
