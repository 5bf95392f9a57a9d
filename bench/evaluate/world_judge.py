"""What the judges of procedural worlds share: frozen lists of captions, the exact verifier's scores, the suite's own CLIP.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.world_data import TokenizedWorld
from bench.evaluate import fidelity
from bench.evaluate.examples import Examples, example_places
from bench.evaluate.image_stream import ImageStream, Look, Seen, chunks_of, look_at
from bench.evaluate.judge import Judge, cluster_error, features_of, stored_features
from bench.evaluate.shapes_clip import FEATURE_DIM, ShapesCLIP
from bench.evaluate.verifier import ATTRIBUTES, Verdict
from bench.results.folder import Results

CLIP, PROBE = "clip", "probe"
"""The judge's own networks, as their files are called."""
VALIDATION_REFERENCE = 1000
"""Real renders of validation captions that settings are compared with."""
CAPTIONS_AT_ONCE = 8192
"""Captions that the CLIP reads together. It has read those of all images at once so far, 5,000 at most, and more need memory."""
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

    def __getitem__(self, rows: np.ndarray | slice, /) -> Any: ...


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
        self._shown: dict[tuple[str, int], Tensor] = {}
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
    def renders(self, split: str, places: np.ndarray, offset: int) -> Tensor:
        """Real images (B, 3, H, H) uint8 at places (B,) of a split's list, with the nuisances of image indices offset + place."""

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

    def real_images(self, num: int) -> Iterator[tuple[Tensor, Any]]:
        captions = self.captions("test", num)
        return ((self.renders("test", places, FLOOR_OFFSET), captions[places]) for places in chunks_of(num))

    def follow(self, images: Tensor, asked: Any) -> np.ndarray:
        return self.verify(images.numpy(), asked).exact

    def validation_scores(self, images: ImageStream) -> dict[str, Any]:
        """Prompt accuracy of images (n, 3, H, H), and their Frechet distance to renders of the same captions."""
        captions = self.captions("validation", len(images))
        enough = len(images) > FEATURE_DIM
        seen = look_at(images, [self.verdicts(captions), *([self.network.look] if enough else [])])
        row = accuracy(seen, self.clusters(captions))
        if enough:
            row["fid"] = fidelity.frechet_distance(seen["features"], self._validation_features)
            row["num_reference"] = len(self._validation_features)
        return row

    def reference_of(self, split: str) -> fidelity.Gaussian:
        """What FIDs of images of "validation" or "test" captions compare with."""
        return fidelity.Gaussian.of(self._validation_features) if split == "validation" else self.reference.gaussian

    def verdicts(self, captions: Captions) -> Look:
        """What is kept of the verdicts on images of captions (n,): `exact` and `attributes`, their mean, and each attribute."""

        def look(images: Tensor, rows: slice) -> dict[str, np.ndarray]:
            return verdict_columns(self.verify(images.numpy(), captions[rows]))

        return look

    @cached_property
    def _validation_features(self) -> np.ndarray:
        """Features of real renders of the validation captions."""
        return self._features("validation", VALIDATION_REFERENCE)

    def _features(self, split: str, num: int) -> np.ndarray:
        """Of real renders of a split (num, d), which all runs of a folder are compared with: made once for all its workers."""
        path = self.results.cache / f"features-{self.network.name}-{self.dataset.fingerprint}-{split}-{num}.npy"

        def compute() -> np.ndarray:
            return features_of(self.network, (self.renders(split, places, REFERENCE_OFFSET) for places in chunks_of(num)))

        return stored_features(path, compute)

    def looks(self, num: int) -> list[Look]:
        captions = self.captions("test", num)

        def probe(images: Tensor, rows: slice) -> dict[str, np.ndarray]:
            return {"probe": self.probe_reads(images, captions[rows])}

        return [self.verdicts(captions), self.clip_scores(captions), probe]

    def prompt_following(self, seen: Seen) -> dict[str, Any]:
        scores, clusters = seen["clip"], self.clusters(self.captions("test", len(seen["clip"])))
        return {
            "clip_score": float(scores.mean()),
            "clip_score_se": cluster_error(scores, clusters),
            "clip_checkpoint": self.network.name,
            "prompt_judge": "exact verifier",
            **accuracy(seen, clusters),
            **{f"prompt_accuracy_{name}": float(seen[name].mean()) for name in ATTRIBUTES},
            "verifier_probe_agreement": float((seen["probe"] == seen["exact"]).mean()),
        }

    def prompts(self, num: int) -> list[str]:
        return self.texts(self.captions("test", num))

    def obeyed(self, images: Tensor) -> np.ndarray:
        return self.verify(images.numpy(), self.captions("test", len(images))).exact

    def reasons(self, images: Tensor) -> list[str]:
        return self.verify(images.numpy(), self.captions("test", len(images))).reasons()

    def examples(self, images: ImageStream, split: str) -> Examples:
        places = example_places(len(images), split)
        captions, shown = self.captions(split, len(images))[places], images.at(places)
        verdict = self.verify(shown.numpy(), captions)
        return Examples(
            GROUPS[split],
            self.texts(captions),
            shown,
            self._beside(split, len(images)),
            [bool(exact) for exact in verdict.exact],
            self.explain(shown.numpy(), captions, verdict),
        )

    def _beside(self, split: str, num: int) -> Tensor:
        """The real images (k, 3, H, H) beside the examples of every run, rendered once."""
        if (split, num) not in self._shown:
            self._shown[split, num] = self.renders(split, example_places(num, split), FLOOR_OFFSET)
        return self._shown[split, num]

    def held_out(self, draw: Callable[[Tensor, str], ImageStream]) -> dict[str, Any]:
        """Prompt accuracy on held-out captions: all of them, and those with one or several objects never trained on."""
        if self.settings.num_held_out == 0:
            return {}
        captions = self.captions("held_out", self.settings.num_held_out)
        seen, clusters = look_at(draw(self.tokens(captions), "held_out"), [self.verdicts(captions)]), self.clusters(captions)
        row = {}
        for name, chosen in {"heldout": np.ones(len(clusters), dtype=bool), **self.held_out_levels(captions)}.items():
            exact = seen["exact"][chosen]
            if len(exact):
                row[f"prompt_accuracy_{name}"] = float(exact.mean())
                row[f"prompt_accuracy_{name}_se"] = cluster_error(exact, clusters[chosen])
        return row

    def clip_scores(self, captions: Captions) -> Look:
        """Keeps as `clip` the cosine of each image and its canonical caption, of captions (n,)."""
        read = self._read_captions(captions)

        @torch.inference_mode()
        def look(images: Tensor, rows: slice) -> dict[str, np.ndarray]:
            return {"clip": (self.clip.encode_images(images)[1] * read[rows]).sum(1).double().numpy()}

        return look

    @torch.inference_mode()
    def _read_captions(self, captions: Captions) -> Tensor:
        """Embeddings (n, F) of canonical captions (n,)."""
        return torch.cat([self.clip.encode_captions(part) for part in self.canonical(captions).split(CAPTIONS_AT_ONCE)])


def verdict_columns(verdict: Verdict) -> dict[str, np.ndarray]:
    """A verdict on images (n,) as arrays (n,): `exact`, `attributes`, which is their mean, and each of ATTRIBUTES."""
    return {"exact": verdict.exact, "attributes": verdict.mean_attributes, **verdict.attributes}


def accuracy(seen: Seen, clusters: np.ndarray) -> dict[str, Any]:
    """Prompt accuracy with its standard error clustered by caption (n,), and the mean attribute score, of verdicts (n,)."""
    return {
        "prompt_accuracy": float(seen["exact"].mean()),
        "prompt_accuracy_se": cluster_error(seen["exact"], clusters),
        "prompt_accuracy_attributes": float(seen["attributes"].mean()),
    }
