"""The judge of a procedural world: the exact verifier, the probe that checks it, and the suite's own CLIP.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.shapes_data import TokenizedShapes
from bench.data.shapes_render import render_captions
from bench.data.shapes_world import Split
from bench.evaluate import fidelity
from bench.evaluate.judge import Judge, cluster_error, stored_features
from bench.evaluate.probe import CaptionProbe
from bench.evaluate.shapes_clip import FEATURE_DIM, ShapesCLIP, canonical_tokens
from bench.evaluate.verifier import Verdict, verify
from bench.results.folder import Results

CLIP, PROBE = "clip", "probe"
"""The judge's own networks, as their files are called."""
VALIDATION_REFERENCE = 1000
"""Real renders of validation captions that settings are compared with."""
REFERENCE_OFFSET, FLOOR_OFFSET = 1_000_000, 2_000_000
"""First image index of the reference and of the floor set, so that no two sets share an image."""


def load_clip(dataset: TokenizedShapes) -> ShapesCLIP:
    """The suite's own CLIP with its shipped weights, frozen.

    Raises:
        ValueError: when they are missing, naming the command that makes them.
    """
    return ShapesCLIP.load(dataset.weights(CLIP))


def load_probe(dataset: TokenizedShapes) -> CaptionProbe:
    """The caption probe with its shipped weights, frozen.

    Raises:
        ValueError: when they are missing, naming the command that makes them.
    """
    return CaptionProbe.load(dataset.weights(PROBE))


def clip_features(dataset: TokenizedShapes, clip: ShapesCLIP) -> fidelity.FeatureNetwork:
    """The CLIP's pooled features, in which FID and its relatives compare images."""
    name = f"shapes-clip-{dataset.hash(CLIP)}"
    return fidelity.FeatureNetwork(name, FEATURE_DIM, lambda images: (clip.encode_images(images)[0],))


class ShapesJudge(Judge):
    """Captions in frozen order; every score of every image can be checked by eye."""

    dataset: TokenizedShapes

    def __init__(self, dataset: TokenizedShapes, settings: Evaluation, results: Results) -> None:
        super().__init__(dataset, settings, results)
        self.world, self.clip, self.probe = dataset.world, load_clip(dataset), load_probe(dataset)
        self.network = clip_features(dataset, self.clip)
        self.reference = fidelity.Reference(
            f"reference-{self.world.fingerprint}-{settings.num_reference}",
            self._features(f"test-{settings.num_reference}", lambda: self._renders(settings.num_reference, REFERENCE_OFFSET)),
        )
        self.selection = {
            "prompt_accuracy": lambda row: (row["prompt_accuracy"], row["prompt_accuracy_attributes"]),
            "fid": lambda row: -row.get("fid", math.inf),
        }

    @classmethod
    def own_networks(cls, dataset: TokenizedShapes) -> tuple[str, ...]:
        return CLIP, PROBE

    @classmethod
    def check(cls, dataset: TokenizedShapes) -> None:
        for network in cls.own_networks(dataset):
            dataset.weights(network)

    def protocol_content(self) -> list[Any]:
        return [self.dataset.fingerprint, self.dataset.hash(CLIP), self.dataset.hash(PROBE), self.settings.content]

    def caption_ids(self, split: Split, num: int) -> np.ndarray:
        """The frozen list (num,): the split's captions in order, repeated until there are num."""
        return np.resize(self.world.split_ids(split), num)

    def _condition_tokens(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(self.world.caption_tokens[ids])

    def conditions(self, split: str, num: int) -> Tensor:
        return self._condition_tokens(self.caption_ids("validation" if split == "validation" else "test", num))

    def passes(self, num: int) -> np.ndarray:
        return np.arange(num) // len(self.world.split_ids("test"))

    def _renders(self, num: int, offset: int) -> Tensor:
        return torch.from_numpy(render_captions(self.world, self.caption_ids("test", num), "test", offset))

    def real_images(self, num: int) -> tuple[Tensor, dict[str, Any]]:
        return self._renders(num, FLOOR_OFFSET), {}

    def ceiling(self, rebuilt: Tensor, about: dict[str, Any]) -> dict[str, Any]:
        ids = self.caption_ids("test", len(rebuilt))
        return {"prompt_accuracy_ceiling": float(verify(self.world, rebuilt.numpy(), ids).exact.mean())}

    def validation_scores(self, images: Tensor) -> dict[str, Any]:
        """Prompt accuracy of images (n, 3, H, H), and their Frechet distance to renders of the same captions."""
        ids = self.caption_ids("validation", len(images))
        row = accuracy(verify(self.world, images.numpy(), ids), ids)
        if len(images) > FEATURE_DIM:
            row["fid"] = fidelity.frechet_distance(self.network.features(images), self._validation_features)
            row["num_reference"] = len(self._validation_features)
        return row

    @cached_property
    def _validation_features(self) -> np.ndarray:
        """Features of real renders of the validation captions."""
        ids = self.caption_ids("validation", VALIDATION_REFERENCE)
        name = f"validation-{VALIDATION_REFERENCE}"
        return self._features(name, lambda: torch.from_numpy(render_captions(self.world, ids, "validation", REFERENCE_OFFSET)))

    def _features(self, name: str, images: Callable[[], Tensor]) -> np.ndarray:
        """Of real renders (n, d), which all runs of a folder are compared with: made once for all its workers."""
        path = self.results.cache / f"features-{self.network.name}-{self.world.fingerprint}-{name}.npy"
        return stored_features(path, lambda: self.network.features(images()))

    def prompt_following(self, images: Tensor) -> dict[str, Any]:
        ids = self.caption_ids("test", len(images))
        verdict, scores = verify(self.world, images.numpy(), ids), self.clip_scores(images, ids)
        return {
            "clip_score": float(scores.mean()),
            "clip_score_se": cluster_error(scores, ids),
            "clip_checkpoint": self.network.name,
            "prompt_judge": "exact verifier",
            **accuracy(verdict, ids),
            **{f"prompt_accuracy_{name}": float(values.mean()) for name, values in verdict.attributes.items()},
            "verifier_probe_agreement": self._probe_agreement(images, ids, verdict),
        }

    def prompts(self, num: int) -> list[str]:
        return [self.world.caption_text(int(i)) for i in self.caption_ids("test", num)]

    def obeyed(self, images: Tensor) -> np.ndarray:
        return verify(self.world, images.numpy(), self.caption_ids("test", len(images))).exact

    def held_out(self, draw: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Prompt accuracy on held-out captions: all of them, and those with one or two objects of a pair never trained on."""
        if self.settings.num_held_out == 0:
            return {}
        ids = self.caption_ids("held_out", self.settings.num_held_out)
        verdict = verify(self.world, draw(self._condition_tokens(ids)).numpy(), ids)
        row = {}
        for name, chosen in {"heldout": np.ones(len(ids), dtype=bool), **self.world.held_out_levels(ids)}.items():
            exact = verdict.exact[chosen]
            if len(exact):
                row[f"prompt_accuracy_{name}"] = float(exact.mean())
                row[f"prompt_accuracy_{name}_se"] = cluster_error(exact, ids[chosen])
        return row

    @torch.inference_mode()
    def _probe_agreement(self, images: Tensor, ids: np.ndarray, verdict: Verdict) -> float:
        canonical = canonical_tokens(self.world, self._condition_tokens(ids))
        return float((self.probe.reads(images, canonical).numpy() == verdict.exact).mean())

    @torch.inference_mode()
    def clip_scores(self, images: Tensor, ids: np.ndarray) -> np.ndarray:
        """Cosine of each image and its canonical caption (n,)."""
        read = self.clip.encode_captions(canonical_tokens(self.world, self._condition_tokens(ids)))
        seen = torch.cat([self.clip.encode_images(chunk)[1] for chunk in images.split(256)])
        return (seen * read).sum(1).double().numpy()


def accuracy(verdict: Verdict, ids: np.ndarray) -> dict[str, Any]:
    """Prompt accuracy with its standard error clustered by caption (n,), and the mean attribute score."""
    return {
        "prompt_accuracy": float(verdict.exact.mean()),
        "prompt_accuracy_se": cluster_error(verdict.exact, ids),
        "prompt_accuracy_attributes": float(verdict.mean_attributes.mean()),
    }
