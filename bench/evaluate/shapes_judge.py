"""The judge of a shapes world. A caption is its row in the world's list of all captions.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.shapes_data import TokenizedShapes
from bench.data.shapes_render import render
from bench.data.shapes_world import Split
from bench.evaluate.probe import CaptionProbe
from bench.evaluate.reasons import reasons
from bench.evaluate.shapes_clip import canonical_tokens
from bench.evaluate.verifier import Verdict, verify
from bench.evaluate.world_judge import PROBE, WorldJudge
from bench.results.folder import Results


def load_probe(dataset: TokenizedShapes) -> CaptionProbe:
    """The caption probe with its shipped weights, frozen.

    Raises:
        ValueError: when they are missing, naming the command that makes them.
    """
    return CaptionProbe.load(dataset.weights(PROBE))


class ShapesJudge(WorldJudge[np.ndarray]):
    """Each split's captions in order, repeated until there are enough."""

    def __init__(self, dataset: TokenizedShapes, settings: Evaluation, results: Results) -> None:
        self.world, self.probe = dataset.world, load_probe(dataset)
        super().__init__(dataset, settings, results)

    def captions(self, split: str, num: int) -> np.ndarray:
        """Rows (num,) of the world's list."""
        return np.resize(self.world.split_ids(cast(Split, split)), num)

    def clusters(self, captions: np.ndarray) -> np.ndarray:
        return captions

    def tokens(self, captions: np.ndarray) -> Tensor:
        return torch.from_numpy(self.world.caption_tokens[captions])

    def canonical(self, captions: np.ndarray) -> Tensor:
        return canonical_tokens(self.world, self.tokens(captions))

    def texts(self, captions: np.ndarray) -> list[str]:
        """Of rows (n,) of the world's list."""
        return [self.world.caption_text(int(i)) for i in captions]

    def passes(self, num: int) -> np.ndarray:
        return np.arange(num) // len(self.world.split_ids("test"))

    def renders(self, split: str, places: np.ndarray, offset: int) -> Tensor:
        name, captions = cast(Split, split), self.captions(split, int(places.max()) + 1)[places]
        return torch.from_numpy(render(self.world, self.world.scenes(captions, offset + places, name)))

    def explain(self, images: np.ndarray, captions: np.ndarray, verdict: Verdict) -> list[str]:
        return reasons(self.world, images, captions, verdict)

    def verify(self, images: np.ndarray, captions: np.ndarray) -> Verdict:
        return verify(self.world, images, captions)

    @torch.inference_mode()
    def probe_reads(self, images: Tensor, captions: np.ndarray) -> np.ndarray:
        return self.probe.reads(images, self.canonical(captions)).numpy()

    def held_out_levels(self, captions: np.ndarray) -> dict[str, np.ndarray]:
        return self.world.held_out_levels(captions)
