"""What scores generated images of one data set: its conditions, its reference images and its networks.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.base import TokenizedData
from bench.evaluate import fidelity
from bench.evaluate.examples import Examples
from bench.evaluate.image_stream import ImageStream, Look, Seen, look_at, regrouped
from bench.files import write_file, write_text
from bench.results.folder import Results


class Judge(ABC):
    """Scores of generated images; what all runs share (reference, floors, ceilings) is computed once and cached."""

    protocol: str
    """Hash of what decides a quality number besides the model."""
    network: fidelity.FeatureNetwork
    reference: fidelity.Reference
    selection: dict[str, Callable[[dict[str, Any]], Any]]
    """The metrics that a sampler setting is chosen for, with what ranks the validation rows; prompt following first."""

    def __init__(self, dataset: TokenizedData, settings: Evaluation, results: Results) -> None:
        self.dataset, self.settings, self.results = dataset, settings, results
        content = json.dumps(self.protocol_content(), sort_keys=True)
        self.protocol = hashlib.sha256(content.encode()).hexdigest()[:8]

    @classmethod
    @abstractmethod
    def own_networks(cls, dataset: Any) -> tuple[str, ...]:
        """The networks that judge a data set of this kind and that `paradigm-bench prepare` trains."""

    @classmethod
    @abstractmethod
    def check(cls, dataset: Any) -> None:
        """Refuse what cannot be judged on this machine, before hours are spent on training.

        Raises:
            ValueError: naming the file that is missing and the command that makes or fetches it.
        """

    @abstractmethod
    def protocol_content(self) -> list[Any]:
        """All that decides a quality number besides the model, of data set and settings, as JSON values."""

    @abstractmethod
    def conditions(self, split: str, num: int) -> Tensor:
        """The frozen list of a split ("validation" or "test"): condition tokens (num, M) or (num, M, F)."""

    @abstractmethod
    def passes(self, num: int) -> np.ndarray | None:
        """Which pass over a balanced list of test conditions each image (n,) belongs to; None for independent images."""

    @abstractmethod
    def validation_scores(self, images: ImageStream) -> dict[str, Any]:
        """What the choice of a setting needs, of images (n, 3, H, H) of the validation conditions."""

    @abstractmethod
    def looks(self, num: int) -> list[Look]:
        """What is kept of each image of the first num test conditions, besides its features, for `prompt_following`."""

    @abstractmethod
    def prompt_following(self, seen: Seen) -> dict[str, Any]:
        """How well the n images of the first n test conditions follow them, by what `looks` kept of them."""

    @abstractmethod
    def prompts(self, num: int) -> list[str]:
        """The first num test conditions in words."""

    @abstractmethod
    def obeyed(self, images: Tensor) -> np.ndarray | None:
        """Whether each image (n, 3, H, H) of the first n test conditions shows what was asked for, (n,); None when nothing can
        tell."""

    def reasons(self, images: Tensor) -> list[str]:
        """For each image (n, 3, H, H) of the first n test conditions what is wrong, in words; empty when nothing can tell."""
        return []

    @abstractmethod
    def examples(self, images: ImageStream, split: str) -> Examples | None:
        """Diverse ones among images (n, 3, H, H) of the first n conditions of "test" or "held_out", of which those at
        `example_places` were kept; None where there are none."""

    @abstractmethod
    def real_images(self, num: int) -> Iterator[tuple[Tensor, Any]]:
        """As many real images outside the reference, of the test conditions where there are some for them, and what is asked of
        them, a chunk (B, 3, H, H) at a time; fewer than num where there are too few."""

    @abstractmethod
    def follow(self, images: Tensor, asked: Any) -> np.ndarray | None:
        """Whether each image (B, 3, H, H) shows what is asked, as `real_images` says it, (B,); None when nothing can tell."""

    def sample_seed(self, split: str) -> int:
        """Seed of the sampler: two splits with the same conditions must not share images."""
        return self.settings.seed

    def held_out(self, draw: Callable[[Tensor, str], ImageStream]) -> dict[str, Any]:
        """Scores on conditions that training never showed; draw makes images (n, 3, H, H) of condition tokens of a split."""
        return {}

    def test_scores(self, images: ImageStream, tokenizer: str) -> dict[str, Any]:
        """All quality columns of images (n, 3, H, H) of the test conditions."""
        seen = self.see(images)
        return {
            "num_reference": len(self.reference.features),
            "reference": self.reference.name,
            "fid_network": self.network.name,
            **{name: value for name, value in asdict(self.fidelity(seen)).items() if value is not None},
            **self.floors(tokenizer),
            **self.prompt_following(seen),
        }

    def see(self, images: ImageStream) -> Seen:
        """All that `fidelity` and `prompt_following` need of images (n, 3, H, H) of the test conditions, in one pass."""
        return look_at(images, [self.network.look, *self.looks(len(images))])

    def fidelity(self, seen: Seen) -> fidelity.Fidelity:
        """FID and its relatives of n images against the reference, by their `features` and, where there are any, `logits`."""
        generated = seen["features"]
        return fidelity.measure(generated, self.reference, self.passes(len(generated)), seen.get("logits"))

    def floors(self, tokenizer: str) -> dict[str, Any]:
        """FID of real images and of the autoencoder's reconstructions, at the same N; the ceiling of prompt following, the most
        that a tokenizer allows."""

        def compute() -> dict[str, Any]:
            model, num = self.dataset.tokenizer(tokenizer), self.settings.num_samples
            real, rebuilt, follow = [], [], []
            for images, asked in self.real_images(num):
                with torch.inference_mode():
                    again = model.reconstruct(images)
                real.append(self.network.features(images))
                rebuilt.append(self.network.features(again))
                follow.append(self.follow(again, asked))
            if sum(len(part) for part in real) < num:
                return {}
            floor, after = (self.fidelity({"features": np.concatenate(parts)}) for parts in (real, rebuilt))
            known = [part for part in follow if part is not None]
            return {
                "fid_floor": floor.fid,
                "kid_floor": floor.kid,
                "fid_autoencoder": after.fid,
                **({"prompt_accuracy_ceiling": float(np.concatenate(known).mean())} if known else {}),
            }

        return self.cached(f"floors-{tokenizer}-{self.dataset.tokenizer_hash(tokenizer)}-{self.protocol}", compute)

    def cached(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A small JSON record of the results folder, computed at the first use."""
        path = self.results.cached(name)
        if not path.exists():
            write_text(path, json.dumps(compute()))
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def stored_features(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Features of real images (n, d), computed at the first use and kept in an .npy file."""
    if not path.exists():
        features = compute()

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:  # np.save would add an ending to a name
                np.save(file, features)

        write_file(path, save)
    found: np.ndarray = np.load(path, allow_pickle=False)
    return found


def features_of(network: fidelity.FeatureNetwork, batches: Iterable[Tensor]) -> np.ndarray:
    """Features (n, d) of images that come a few at a time (any number, 3, H, H), as if all were there at once."""
    return np.concatenate([network.features(chunk) for chunk in regrouped(batches)])


def cluster_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of a mean (n,) whose members share captions (n,): the sandwich estimator over caption sums.

    Shares of 0 or 1 show no variation; they get the binomial error of (x + 1) / (n + 2) instead (Laplace's rule).
    """
    n, deviations = len(values), values.astype(np.float64) - values.mean()
    _, inverse = np.unique(clusters, return_inverse=True)
    sums = np.bincount(inverse, weights=deviations)
    if not deviations.any():
        share = (values.mean() * n + 1) / (n + 2)
        return float(np.sqrt(max(share * (1 - share), 0.0) / n))
    return float(np.sqrt(len(sums) / max(len(sums) - 1, 1) * (sums**2).sum()) / n)
