"""The judge of a sprites world: also captions with equally likely kinds, and accuracy by how frequent a kind is in training.

Letters: n images, M condition tokens, P phrases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.sprites_config import Captions
from bench.data.sprites_data import TokenizedSprites
from bench.data.sprites_render import render_captions
from bench.data.sprites_world import NUM_DECILES, SpriteSplit
from bench.evaluate.image_stream import ImageStream, look_at
from bench.evaluate.judge import cluster_error
from bench.evaluate.sprites_probe import FieldProbe
from bench.evaluate.sprites_verifier import SpriteVerdict, compare, verify
from bench.evaluate.world_judge import PROBE, REFERENCE_OFFSET, WorldJudge
from bench.results.folder import Results


def load_field_probe(dataset: TokenizedSprites) -> FieldProbe:
    """The field probe with its weights, frozen.

    Raises:
        ValueError: when they are missing, naming the command that makes them.
    """
    return FieldProbe.load(dataset.weights(PROBE))


class SpritesJudge(WorldJudge[Captions]):
    """The first captions of each split's endless stream."""

    def __init__(self, dataset: TokenizedSprites, settings: Evaluation, results: Results) -> None:
        self.world, self.probe = dataset.world, load_field_probe(dataset)
        super().__init__(dataset, settings, results)

    def captions(self, split: str, num: int) -> Captions:
        return self.world.draw(cast(SpriteSplit, split), np.arange(num))

    def clusters(self, captions: Captions) -> np.ndarray:
        return np.unique(self.world.tokens(captions), axis=0, return_inverse=True)[1].ravel()

    def tokens(self, captions: Captions) -> Tensor:
        return torch.from_numpy(self.world.tokens(captions))

    def canonical(self, captions: Captions) -> Tensor:
        return self.tokens(captions)

    def texts(self, captions: Captions) -> list[str]:
        return [self.world.text(captions, row) for row in range(len(captions))]

    def passes(self, num: int) -> None:
        """Captions are drawn, not balanced."""

    def renders(self, split: str, places: np.ndarray, offset: int) -> Tensor:
        """The reference has captions of its own, by the same law; the floor has those that are sampled."""
        indices, name = offset + places, cast(SpriteSplit, split)
        captions = self.world.draw(name, indices if offset == REFERENCE_OFFSET else places)
        return torch.from_numpy(render_captions(self.world, captions, indices, name))

    def verify(self, images: np.ndarray, captions: Captions) -> SpriteVerdict:
        return verify(self.world, images, captions)

    @torch.inference_mode()
    def probe_reads(self, images: Tensor, captions: Captions) -> np.ndarray:
        return compare(self.world, self.probe.reads(self.world.config, images), captions).exact

    def held_out_levels(self, captions: Captions) -> dict[str, np.ndarray]:
        return self.world.held_out_levels(captions)

    def held_out(self, draw: Callable[[Tensor, str], ImageStream]) -> dict[str, Any]:
        """Also as many captions with equally likely kinds: prompt accuracy, and the share of objects that are right by decile."""
        row = super().held_out(draw)
        if self.settings.num_held_out == 0:
            return row
        captions = self.captions("uniform", self.settings.num_held_out)

        def look(images: Tensor, rows: slice) -> dict[str, np.ndarray]:
            verdict = self.verify(images.numpy(), captions[rows])
            return {"exact": verdict.exact, "phrases": verdict.phrases}

        seen = look_at(draw(self.tokens(captions), "uniform"), [look])
        row["prompt_accuracy_uniform"] = float(seen["exact"].mean())
        row["prompt_accuracy_uniform_se"] = cluster_error(seen["exact"], self.clusters(captions))
        decile = np.where(captions.named, self.world.deciles[captions.kind], -1)
        for number in range(NUM_DECILES):
            objects = np.where(decile == number, captions.number, 0)
            if objects.any():
                row[f"object_accuracy_decile_{number + 1}"] = float((objects * seen["phrases"]).sum() / objects.sum())
        return row
