"""A procedural world as tokens: its renders, the suite's own autoencoders, CLIP and probe, shipped and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.conditioning import ConditionSpace
from bench.config.experiment import Evaluation
from bench.config.tokenizers import TOKENIZERS, AutoencoderConfig
from bench.data.base import TokenizedData
from bench.data.shapes_world import SHAPES32, SHAPES64, ShapesWorld
from bench.errors import nearest

if TYPE_CHECKING:
    from bench.data.latents import Encoded
    from bench.evaluate.fidelity import FeatureNetwork
    from bench.evaluate.probe import CaptionProbe
    from bench.evaluate.shapes_clip import ShapesCLIP
    from bench.evaluate.shapes_judge import ShapesJudge
    from bench.results.folder import Results


WORLDS = {config.name: config for config in (SHAPES32, SHAPES64)}


class TokenizedShapes(TokenizedData):
    """Everything of a world that a run or its evaluation needs."""

    views, chunk = 1, 2048
    tokenizer_configs = TOKENIZERS

    def __init__(self, world: str) -> None:
        if world not in WORLDS:
            raise ValueError(f"unknown procedural world {world!r}; {nearest(world, list(WORLDS))}")
        self.world = ShapesWorld(WORLDS[world])
        self.name, self.fingerprint = self.world.config.name, self.world.fingerprint
        self.resolution = self.world.config.resolution
        self.autoencoder_configs = {
            "autoencoder-kl": AutoencoderConfig(bottleneck="kl", resolution=self.resolution),
            "autoencoder-fsq": AutoencoderConfig(bottleneck="fsq", resolution=self.resolution),
        }

    @property
    def folder(self) -> Path:
        return Path(__file__).parent.parent / "weights" / f"{self.name}-v{self.world.config.generator_version}"

    @property
    def prepare_command(self) -> str:
        return f"paradigm-bench prepare {self.name}"

    @property
    def conditions(self) -> ConditionSpace:
        tokens = self.world.caption_tokens
        return ConditionSpace(num_tokens=tokens.shape[1], vocabulary=len(self.world.vocabulary))

    def read_condition(self, text: str) -> Tensor:
        return torch.from_numpy(self.world.tokenize(text)).view(1, -1)

    def cache(self, results: Results) -> Path:
        return results.cache

    def check(self, num_images: int) -> None:
        for part in ("clip", "probe"):
            self.weights(part)

    def encoder(self, tokenizer: str) -> Callable[[range], Encoded]:
        from bench.data.latents import Encoded  # imported late, like the networks: planning needs none
        from bench.data.shapes_render import render_split

        model = self.tokenizer(tokenizer)

        def encode(indices: range) -> Encoded:
            images, ids = render_split(self.world, "train", np.asarray(indices))
            with torch.inference_mode():
                tokens = self.stored(model.encode(torch.from_numpy(images)), tokenizer)
            return Encoded(tokens[:, None], self.world.caption_tokens[ids].astype(np.uint8))

        return encode

    @cached_property
    def clip(self) -> ShapesCLIP:
        """The small CLIP with its shipped weights, frozen."""
        from bench.evaluate.shapes_clip import ShapesCLIP

        return ShapesCLIP.load(self.weights("clip"))

    @cached_property
    def probe(self) -> CaptionProbe:
        """The caption probe with its shipped weights, frozen."""
        from bench.evaluate.probe import CaptionProbe

        return CaptionProbe.load(self.weights("probe"))

    @cached_property
    def features(self) -> FeatureNetwork:
        """The CLIP's pooled features, in which FID and its relatives compare images."""
        from bench.evaluate.fidelity import FeatureNetwork
        from bench.evaluate.shapes_clip import FEATURE_DIM

        clip = self.clip
        return FeatureNetwork(f"shapes-clip-{self.hash('clip')}", FEATURE_DIM, lambda images: (clip.encode_images(images)[0],))

    def protocol(self, evaluation: Evaluation) -> str:
        content = [self.world.fingerprint, self.hash("clip"), self.hash("probe"), asdict(evaluation)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    def judge(self, settings: Evaluation, results: Results) -> ShapesJudge:
        from bench.evaluate.shapes_judge import ShapesJudge

        return ShapesJudge(self, settings, results)
