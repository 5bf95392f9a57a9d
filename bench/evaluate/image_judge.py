"""The judge of a data set of images: Inception or the suite's own classifier, DINOv2, CLIP, against real images.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.config.experiment import Evaluation
from bench.data.image_data import TokenizedImages
from bench.data.image_files import ImageSet
from bench.evaluate import fidelity
from bench.evaluate.examples import Examples, example_places, named_examples
from bench.evaluate.image_networks import CLASSIFIER, load_networks, published_statistics
from bench.evaluate.image_stream import ImageStream, Look, Seen, chunks_of, look_at
from bench.evaluate.judge import Judge, cluster_error, features_of, stored_features
from bench.files import file_hash
from bench.results.folder import Results

VALIDATION_SEED = 1_000_003
"""Added to the sample seed of validation images: where conditions are classes, both splits have the same ones."""


@dataclass(frozen=True)
class Places:
    """Images of a split at places start .. start + num - 1 of its spread order."""

    split: str
    images: ImageSet
    start: int
    num: int

    @cached_property
    def content(self) -> str:
        """Hash of the split's content."""
        return self.images.fingerprint()


class ImageJudge(Judge):
    """Classes in balance, or captions of the evaluation split; prompt following by classifier or CLIP, where there is one."""

    dataset: TokenizedImages

    def __init__(self, dataset: TokenizedImages, settings: Evaluation, results: Results) -> None:
        super().__init__(dataset, settings, results)
        self._captions_asked: dict[tuple[str, int], list[int | str]] = {}
        self.data, networks = dataset.data, load_networks(dataset)
        self.network, self.classifier = networks.features, networks.classifier
        self.dinov2, self.clip = networks.dinov2, networks.clip
        features = self._features(self.network, self._test_images)
        published = published_statistics(self.data.judge.reference_statistics, self.network)
        name = self._reference_name(self._test_images, len(features))
        if published is not None:
            name += f"+{Path(self.data.judge.reference_statistics).name}"
        self.reference = fidelity.Reference(name, features, published)
        self.selection = {}
        if self.classifier is not None:
            self.selection["prompt_accuracy"] = lambda row: row["prompt_accuracy"]
        elif self.clip is not None:
            self.selection["clip_score"] = lambda row: row["clip_score"]
        self.selection["fid"] = lambda row: -row.get("fid", math.inf)

    @classmethod
    def own_networks(cls, dataset: TokenizedImages) -> tuple[str, ...]:
        return (CLASSIFIER,) if dataset.data.judge.features == CLASSIFIER else ()

    @classmethod
    def check(cls, dataset: TokenizedImages) -> None:
        """Loads every network that judges, reads the published statistics and opens the evaluation split."""
        networks = load_networks(dataset)
        published_statistics(dataset.data.judge.reference_statistics, networks.features)
        _ = dataset.evaluation_set

    def protocol_content(self) -> list[Any]:
        data, judge = self.dataset.data, asdict(self.dataset.data.judge)
        statistics = data.judge.reference_statistics
        judge["reference_statistics"] = file_hash(Path(statistics)) if statistics else ""
        content = [self.dataset.fingerprint, data.evaluation_split, judge, self.dataset.hash(CLASSIFIER)]
        return [*content, self.settings.content, "validation reference of its own"]

    # -- what is compared with

    @cached_property
    def _test_images(self) -> Places:
        """The reference of the test conditions: the first images of the evaluation split."""
        images, num = self.dataset.evaluation_set, self.settings.num_reference
        if images is self.dataset.training_set:  # half of few images is for validation
            num = min(num, len(images) // 2)
        return Places(self.data.evaluation_split or self.data.split, images, 0, num)

    @cached_property
    def _validation_images(self) -> Places:
        """The reference that settings are chosen against, none of it in the test's: the next images of the evaluation split, or
        where it has not so many, the last of the training split."""
        test, images = self._test_images, self.dataset.training_set
        if len(test.images) >= 2 * test.num:
            return replace(test, start=test.num)
        num = min(self.settings.num_reference, len(images))
        return Places(self.data.split, images, len(images) - num, num)

    @cached_property
    def _validation_reference(self) -> fidelity.Reference:
        features = self._features(self.network, self._validation_images)
        return fidelity.Reference(self._reference_name(self._validation_images, len(features)), features)

    def _reference_name(self, places: Places, num: int) -> str:
        first = f"from-{places.start}-" if places.start else ""
        return f"{self.data.name}-{places.split}-{places.content}-{self.data.resolution}px-{first}{num}"

    def _read(self, images: ImageSet, start: int, num: int) -> Iterator[tuple[Tensor, list[int | str]]]:
        """Images of a split at places start .. start + num - 1 of its spread order, less what cannot be read, with conditions, a
        chunk (B, 3, H, H) at a time."""
        chosen = self.dataset.spread(images, start, start + num)
        with self.dataset.pool() as pool:
            for part in chunks_of(len(chosen)):
                found, conditions, _ = images.read(chosen[part], pool.map)
                yield torch.from_numpy(found), conditions

    def _features(self, network: fidelity.FeatureNetwork, places: Places) -> np.ndarray:
        """Of reference images (num, F), computed once for all experiments on the data."""
        split, content = places.split.replace("/", "_"), places.content
        name = f"features-{network.name}-{split}-{content}-{places.start}-{places.num}.npy"
        path = self.dataset.cache(self.results.cache) / name
        read = (images for images, _ in self._read(places.images, places.start, places.num))
        return stored_features(path, lambda: features_of(network, read))

    # -- what is asked for

    def sample_seed(self, split: str) -> int:
        return self.settings.seed + (VALIDATION_SEED if split == "validation" else 0)

    def _asked(self, split: str, num: int) -> list[int | str]:
        """Classes in turn; or captions of the evaluation split, those of validation first and those of the test after them."""
        if self.data.condition == "class":
            return [int(c) for c in np.resize(np.arange(self.data.num_classes), num)]
        if (split, num) not in self._captions_asked:  # reading a row reads its image too
            images, first = self.dataset.evaluation_set, self.settings.num_validation if split == "test" else 0
            rows = np.resize(self.dataset.spread(images, first, first + num), num)
            self._captions_asked[split, num] = [images.row(row).condition for row in rows]
        return self._captions_asked[split, num]

    def conditions(self, split: str, num: int) -> Tensor:
        return self.dataset.tokens_of(self._asked(split, num))

    def passes(self, num: int) -> np.ndarray | None:
        return np.arange(num) // self.data.num_classes if self.data.condition == "class" else None

    # -- scores

    def follow(self, images: Tensor, asked: list[int | str]) -> np.ndarray | None:
        """Whether the classifier sees the class that was asked for."""
        if self.classifier is None:
            return None
        right: np.ndarray = self.classifier.classify(images).numpy() == np.array(asked)
        return right

    def _looks(self, asked: list[int | str]) -> list[Look]:
        """What is kept of images (n,) of what was asked for: whether they follow it, `exact`, and the score `clip`, of what there
        is."""

        def exact(images: Tensor, rows: slice) -> dict[str, np.ndarray]:
            right = self.follow(images, asked[rows])
            return {} if right is None else {"exact": right}

        def score(images: Tensor, rows: slice) -> dict[str, np.ndarray]:
            return {} if self.clip is None else {"clip": self.clip(images, self._captions(asked[rows]))}

        return [exact, score]

    def _followed(self, seen: Seen, asked: list[int | str]) -> dict[str, Any]:
        """Share of images with the class that was asked for, and the CLIP score, of what there is."""
        row: dict[str, Any] = {}
        if "exact" in seen:
            right = seen["exact"]
            row |= {"prompt_accuracy": float(right.mean()), "prompt_accuracy_se": cluster_error(right, np.array(asked))}
            row["prompt_judge"] = self.network.name
        if self.clip is not None:
            scores = seen["clip"]
            row |= {"clip_score": float(scores.mean()), "clip_score_se": cluster_error(scores, np.array(asked))}
            row["clip_checkpoint"] = self.clip.name
        return row

    def _captions(self, asked: list[int | str]) -> list[str]:
        if self.data.condition == "caption":
            return [str(caption) for caption in asked]
        names = self.dataset.class_names
        return [self.data.judge.clip_prompt.format(names[int(c)]) for c in asked]

    def validation_scores(self, images: ImageStream) -> dict[str, Any]:
        """Prompt following of images (n, 3, H, H), and their Frechet distance to the validation reference."""
        reference, asked = self._validation_reference, self._asked("validation", len(images))
        seen = look_at(images, [self.network.look, *self._looks(asked)])
        row = self._followed(seen, asked)
        row["fid"] = fidelity.frechet_distance(seen["features"], reference.gaussian)
        row |= {"num_reference": len(reference.features), "fid_network": self.network.name, "reference": reference.name}
        return row

    def looks(self, num: int) -> list[Look]:
        second = self.dinov2

        def dinov2(images: Tensor, rows: slice) -> dict[str, np.ndarray]:
            return {} if second is None else {"dinov2": second.features(images)}

        return [*self._looks(self._asked("test", num)), dinov2]

    def prompt_following(self, seen: Seen) -> dict[str, Any]:
        num = len(seen["features"])
        row = self._followed(seen, self._asked("test", num))
        if self.dinov2 is not None:
            reference = fidelity.Gaussian.of(self._features(self.dinov2, self._test_images))
            row["fd_dinov2"], row["fd_dinov2_se"] = fidelity.frechet_with_error(seen["dinov2"], reference, self.passes(num))
            row["dinov2_network"] = self.dinov2.name
        return row

    def prompts(self, num: int) -> list[str]:
        asked, names = self._asked("test", num), self.dataset.class_names
        return [str(one) if self.data.condition == "caption" else names[int(one)] for one in asked]

    def obeyed(self, images: Tensor) -> np.ndarray | None:
        return self.follow(images, self._asked("test", len(images)))

    def examples(self, images: ImageStream, split: str) -> Examples | None:
        if split == "held_out":
            return None
        places, asked = example_places(len(images), split), self._asked("test", len(images))
        prompts, shown = np.array(self.prompts(len(images)))[places].tolist(), images.at(places)
        said = (
            None if self.classifier is None else [self.dataset.class_names[c] for c in self.classifier.classify(shown).tolist()]
        )
        return named_examples("test conditions", prompts, shown, self._real_examples([asked[place] for place in places]), said)

    def _real_examples(self, asked: list[int | str]) -> Tensor | None:
        """A real image (k, 3, H, H) of the reference's first chunk for each condition; None where one of them has none there."""
        found = self._test_images
        images, conditions = next(self._read(found.images, found.start, found.num))
        return images[[conditions.index(one) for one in asked]] if set(asked) <= set(conditions) else None

    def real_images(self, num: int) -> Iterator[tuple[Tensor, Any]]:
        """Of the training split, beyond the reference where that is of the same split; none where there are fewer than num."""
        training, evaluation = self.dataset.training_set, self.dataset.evaluation_set
        start = self._test_images.num if training is evaluation else 0
        return self._read(training, start, num if start + num <= len(training) else 0)
