"""What the judges of procedural worlds share: frozen lists of captions, the exact verifier's scores, the suite's own CLIP.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.world_data import TokenizedWorld
from bench.evaluate import fidelity
from bench.evaluate.examples import Examples, example_places
from bench.evaluate.judge import Judge, cluster_error, stored_features
from bench.evaluate.shapes_clip import FEATURE_DIM, ShapesCLIP
from bench.evaluate.verifier import Verdict
from bench.results.folder import Results

CLIP, PROBE = "clip", "probe"
"""The judge's own networks, as their files are called."""
VALIDATION_REFERENCE = 1000
"""Real renders of validation captions that settings are compared with."""
REFERENCE_OFFSET, FLOOR_OFFSET = 1_000_000, 2_000_000
"""First image index of the reference and of the floor set, so that no two sets share an image."""

GROUPS = {
    "test": "new captions of known pairs",
    "held_out": "pairs of kind and color never trained on",
    "uniform": "kinds named equally often",
}
"""The kinds of captions, in words."""


class Rows(Protocol):
    """What captions of any world allow."""

    def __getitem__(self, rows: np.ndarray, /) -> Any: ...


Captions = TypeVar("Captions", bound=Rows)
"""n captions as a world writes them: rows of its list, or arrays."""


def load_clip(dataset: TokenizedWorld) -> ShapesCLIP:
    """The suite's own CLIP with its weights, frozen.

    Raises:
        ValueError: when they are missing, naming the command that makes them.
    """
    return ShapesCLIP.load(dataset.weights(CLIP))


def clip_features(dataset: TokenizedWorld, clip: ShapesCLIP) -> fidelity.FeatureNetwork:
    """The CLIP's pooled features, in which FID and its relatives compare images."""
    name = f"{dataset.family}-clip-{dataset.hash(CLIP)}"
    return fidelity.FeatureNetwork(name, FEATURE_DIM, lambda images: (clip.encode_images(images)[0],))


class WorldJudge(Judge, Generic[Captions]):
    """Captions in frozen order; every score of every image can be checked by eye."""

    dataset: TokenizedWorld

    def __init__(self, dataset: TokenizedWorld, settings: Evaluation, results: Results) -> None:
        super().__init__(dataset, settings, results)
        self.clip = load_clip(dataset)
        self.network = clip_features(dataset, self.clip)
        self.reference = fidelity.Reference(
            f"reference-{dataset.fingerprint}-{settings.num_reference}",
            self._features("test", settings.num_reference),
        )
        self.selection = {
            "prompt_accuracy": lambda row: (row["prompt_accuracy"], row["prompt_accuracy_attributes"]),
            "fid": lambda row: -row.get("fid", math.inf),
        }

    # -- what a world says

    @abstractmethod
    def captions(self, split: str, num: int) -> Captions:
        """The frozen list (num,) of a split: "validation", "test" or "held_out"."""

    @abstractmethod
    def clusters(self, captions: Captions) -> np.ndarray:
        """Equal numbers (n,) for equal captions."""

    @abstractmethod
    def tokens(self, captions: Captions) -> Tensor:
        """Condition tokens (n, M)."""

    @abstractmethod
    def canonical(self, captions: Captions) -> Tensor:
        """The tokens (n, M) that the CLIP reads: one phrasing for each scene."""

    @abstractmethod
    def texts(self, captions: Captions) -> list[str]:
        """Captions (n,) as a person would write them."""

    @abstractmethod
    def renders(self, split: str, num: int, offset: int) -> Tensor:
        """Real images (num, 3, H, H) uint8 of a split, with the nuisances of the image indices from `offset` on."""

    @abstractmethod
    def verify(self, images: np.ndarray, captions: Captions) -> Verdict:
        """The exact verifier's verdict on images (n, 3, H, H) uint8."""

    @abstractmethod
    def probe_reads(self, images: Tensor, captions: Captions) -> np.ndarray:
        """Whether the probe reads the captions off images (n, 3, H, H), (n,) bool."""

    def explain(self, images: np.ndarray, captions: Captions, verdict: Verdict) -> list[str]:
        """For each image (n, 3, H, H) uint8 what is wrong, in as many words as it takes; empty where the caption is obeyed."""
        return verdict.reasons()

    @abstractmethod
    def held_out_levels(self, captions: Captions) -> dict[str, np.ndarray]:
        """Which captions (n,) name one, and which several, objects that no training caption names."""

    # -- what follows from it

    @classmethod
    def own_networks(cls, dataset: TokenizedWorld) -> tuple[str, ...]:
        return CLIP, PROBE

    @classmethod
    def check(cls, dataset: TokenizedWorld) -> None:
        for network in cls.own_networks(dataset):
            dataset.weights(network)

    def protocol_content(self) -> list[Any]:
        return [self.dataset.fingerprint, self.dataset.hash(CLIP), self.dataset.hash(PROBE), self.settings.content]

    def conditions(self, split: str, num: int) -> Tensor:
        return self.tokens(self.captions("validation" if split == "validation" else "test", num))

    def real_images(self, num: int) -> tuple[Tensor, dict[str, Any]]:
        return self.renders("test", num, FLOOR_OFFSET), {}

    def ceiling(self, rebuilt: Tensor, about: dict[str, Any]) -> dict[str, Any]:
        captions = self.captions("test", len(rebuilt))
        return {"prompt_accuracy_ceiling": float(self.verify(rebuilt.numpy(), captions).exact.mean())}

    def validation_scores(self, images: Tensor) -> dict[str, Any]:
        """Prompt accuracy of images (n, 3, H, H), and their Frechet distance to renders of the same captions."""
        captions = self.captions("validation", len(images))
        row = accuracy(self.verify(images.numpy(), captions), self.clusters(captions))
        if len(images) > FEATURE_DIM:
            row["fid"] = fidelity.frechet_distance(self.network.features(images), self._validation_features)
            row["num_reference"] = len(self._validation_features)
        return row

    @cached_property
    def _validation_features(self) -> np.ndarray:
        """Features of real renders of the validation captions."""
        return self._features("validation", VALIDATION_REFERENCE)

    def _features(self, split: str, num: int) -> np.ndarray:
        """Of real renders of a split (num, d), which all runs of a folder are compared with: made once for all its workers."""
        path = self.results.cache / f"features-{self.network.name}-{self.dataset.fingerprint}-{split}-{num}.npy"
        return stored_features(path, lambda: self.network.features(self.renders(split, num, REFERENCE_OFFSET)))

    def prompt_following(self, images: Tensor) -> dict[str, Any]:
        captions = self.captions("test", len(images))
        clusters = self.clusters(captions)
        verdict, scores = self.verify(images.numpy(), captions), self.clip_scores(images, captions)
        return {
            "clip_score": float(scores.mean()),
            "clip_score_se": cluster_error(scores, clusters),
            "clip_checkpoint": self.network.name,
            "prompt_judge": "exact verifier",
            **accuracy(verdict, clusters),
            **{f"prompt_accuracy_{name}": float(values.mean()) for name, values in verdict.attributes.items()},
            "verifier_probe_agreement": float((self.probe_reads(images, captions) == verdict.exact).mean()),
        }

    def prompts(self, num: int) -> list[str]:
        return self.texts(self.captions("test", num))

    def obeyed(self, images: Tensor) -> np.ndarray:
        return self.verify(images.numpy(), self.captions("test", len(images))).exact

    def reasons(self, images: Tensor) -> list[str]:
        return self.verify(images.numpy(), self.captions("test", len(images))).reasons()

    def examples(self, images: Tensor, split: str) -> Examples:
        places = example_places(len(images), split)
        captions, shown = self.captions(split, len(images))[places], images[places]
        verdict = self.verify(shown.numpy(), captions)
        return Examples(
            GROUPS[split],
            self.texts(captions),
            shown,
            self.renders(split, len(images), FLOOR_OFFSET)[places],
            [bool(exact) for exact in verdict.exact],
            self.explain(shown.numpy(), captions, verdict),
        )

    def held_out(self, draw: Callable[[Tensor, str], Tensor]) -> dict[str, Any]:
        """Prompt accuracy on held-out captions: all of them, and those with one or several objects never trained on."""
        if self.settings.num_held_out == 0:
            return {}
        captions = self.captions("held_out", self.settings.num_held_out)
        verdict, clusters = self.verify(draw(self.tokens(captions), "held_out").numpy(), captions), self.clusters(captions)
        row = {}
        for name, chosen in {"heldout": np.ones(len(clusters), dtype=bool), **self.held_out_levels(captions)}.items():
            exact = verdict.exact[chosen]
            if len(exact):
                row[f"prompt_accuracy_{name}"] = float(exact.mean())
                row[f"prompt_accuracy_{name}_se"] = cluster_error(exact, clusters[chosen])
        return row

    @torch.inference_mode()
    def clip_scores(self, images: Tensor, captions: Captions) -> np.ndarray:
        """Cosine of each image and its canonical caption (n,)."""
        read = self.clip.encode_captions(self.canonical(captions))
        seen = torch.cat([self.clip.encode_images(chunk)[1] for chunk in images.split(256)])
        return (seen * read).sum(1).double().numpy()


def accuracy(verdict: Verdict, clusters: np.ndarray) -> dict[str, Any]:
    """Prompt accuracy with its standard error clustered by caption (n,), and the mean attribute score."""
    return {
        "prompt_accuracy": float(verdict.exact.mean()),
        "prompt_accuracy_se": cluster_error(verdict.exact, clusters),
        "prompt_accuracy_attributes": float(verdict.mean_attributes.mean()),
    }
