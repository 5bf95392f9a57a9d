"""The judge of a data set of images: Inception or the suite's own classifier, DINOv2, CLIP, against real images.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import math
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
from bench.evaluate import fidelity, pretrained
from bench.evaluate.classifier import FEATURE_DIM, Classifier
from bench.evaluate.examples import Examples, example_places, named_examples
from bench.evaluate.judge import Judge, cluster_error, stored_features
from bench.files import file_hash
from bench.results.folder import Results

CLASSIFIER = "classifier"
"""The suite's own judge of classes, as its file and JudgeConfig.features call it."""
REAL_EXAMPLES_READ = 256
"""Real images among which one is looked for per example."""
VALIDATION_SEED = 1_000_003
"""Added to the sample seed of validation images: where conditions are classes, both splits have the same ones."""


@dataclass(frozen=True)
class Networks:
    """The networks that judge a data set of images; None where the experiment names none."""

    features: fidelity.FeatureNetwork
    classifier: Classifier | None
    dinov2: fidelity.FeatureNetwork | None
    clip: pretrained.ClipScore | None


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


def load_classifier(dataset: TokenizedImages) -> Classifier:
    """The classifier that `paradigm-bench prepare` trained on this data set, frozen.

    Raises:
        ValueError: when its weights are missing, naming the command that makes them.
    """
    return Classifier.load(dataset.weights(CLASSIFIER))


def load_networks(dataset: TokenizedImages) -> Networks:
    """All networks that judge a data set of images, on the device that models run on.

    Raises:
        ValueError: for a network that is not on this machine.
    """
    judge, device = dataset.data.judge, dataset.device
    classifier = load_classifier(dataset).to(device) if judge.features == CLASSIFIER else None
    if classifier is None:
        features = pretrained.inception(judge.inception, device)
    else:
        name = f"{dataset.name}-classifier-{dataset.hash(CLASSIFIER)}"
        features = fidelity.FeatureNetwork(name, FEATURE_DIM, lambda images: (classifier.features(images).cpu(),))
    return Networks(
        features,
        classifier,
        pretrained.dinov2(judge.dinov2, device) if judge.dinov2 else None,
        pretrained.ClipScore(judge.clip, device) if judge.clip else None,
    )


def published_statistics(file: str, network: fidelity.FeatureNetwork) -> fidelity.Gaussian | None:
    """Mean and covariance of a published reference from an .npz of the ADM evaluator's format; None where no file is named.

    Raises:
        ValueError: when the file is missing, is none, or was made with another network.
    """
    if not file:
        return None
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"reference_statistics {path} is missing; put the .npz with mu and sigma there, or leave the option out")
    with np.load(path, allow_pickle=False) as content:
        if not {"mu", "sigma"} <= set(content.files):
            raise ValueError(f"{path} has {', '.join(content.files)}, but mu and sigma are needed")
        mean, covariance = content["mu"].astype(np.float64), content["sigma"].astype(np.float64)
    if mean.shape != (network.dim,) or covariance.shape != (network.dim, network.dim):
        raise ValueError(f"{path} is of {mean.shape[0]} features, {network.name} has {network.dim}")
    return fidelity.Gaussian(mean, covariance)


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

    def _read(self, images: ImageSet, start: int, num: int) -> tuple[Tensor, list[int | str]]:
        """Images of a split at places start .. start + num - 1 of its spread order, less what cannot be read, with conditions."""
        with self.dataset.pool() as pool:
            found, conditions, _ = images.read(self.dataset.spread(images, start, start + num), pool.map)
        return torch.from_numpy(found), conditions

    def _features(self, network: fidelity.FeatureNetwork, places: Places) -> np.ndarray:
        """Of reference images (num, F), computed once for all experiments on the data."""
        split, content = places.split.replace("/", "_"), places.content
        name = f"features-{network.name}-{split}-{content}-{places.start}-{places.num}.npy"
        path = self.dataset.cache(self.results.cache) / name
        return stored_features(path, lambda: network.features(self._read(places.images, places.start, places.num)[0]))

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

    def _follows(self, images: Tensor, asked: list[int | str]) -> dict[str, Any]:
        """Share of images with the class that was asked for, and the CLIP score, of what there is."""
        row: dict[str, Any] = {}
        if self.classifier is not None:
            right = self.classifier.classify(images).numpy() == np.array(asked)
            row |= {"prompt_accuracy": float(right.mean()), "prompt_accuracy_se": cluster_error(right, np.array(asked))}
            row["prompt_judge"] = self.network.name
        if self.clip is not None:
            scores = self.clip(images, self._captions(asked))
            row |= {"clip_score": float(scores.mean()), "clip_score_se": cluster_error(scores, np.array(asked))}
            row["clip_checkpoint"] = self.clip.name
        return row

    def _captions(self, asked: list[int | str]) -> list[str]:
        if self.data.condition == "caption":
            return [str(caption) for caption in asked]
        names = self.dataset.class_names
        return [self.data.judge.clip_prompt.format(names[int(c)]) for c in asked]

    def validation_scores(self, images: Tensor) -> dict[str, Any]:
        """Prompt following of images (n, 3, H, H), and their Frechet distance to the validation reference."""
        reference = self._validation_reference
        row = self._follows(images, self._asked("validation", len(images)))
        row["fid"] = fidelity.frechet_distance(self.network.features(images), reference.gaussian)
        row |= {"num_reference": len(reference.features), "fid_network": self.network.name, "reference": reference.name}
        return row

    def prompt_following(self, images: Tensor) -> dict[str, Any]:
        row = self._follows(images, self._asked("test", len(images)))
        if self.dinov2 is not None:
            reference = fidelity.Gaussian.of(self._features(self.dinov2, self._test_images))
            row["fd_dinov2"], row["fd_dinov2_se"] = fidelity.frechet_with_error(
                self.dinov2.features(images), reference, self.passes(len(images))
            )
            row["dinov2_network"] = self.dinov2.name
        return row

    def prompts(self, num: int) -> list[str]:
        asked, names = self._asked("test", num), self.dataset.class_names
        return [str(one) if self.data.condition == "caption" else names[int(one)] for one in asked]

    def obeyed(self, images: Tensor) -> np.ndarray | None:
        if self.classifier is None:
            return None
        found: np.ndarray = self.classifier.classify(images).numpy() == np.array(self._asked("test", len(images)))
        return found

    def examples(self, images: Tensor, split: str) -> Examples | None:
        if split == "held_out":
            return None
        places, asked = example_places(len(images), split), self._asked("test", len(images))
        prompts, shown = np.array(self.prompts(len(images)))[places].tolist(), images[places]
        said = (
            None if self.classifier is None else [self.dataset.class_names[c] for c in self.classifier.classify(shown).tolist()]
        )
        return named_examples("test conditions", prompts, shown, self._real_examples([asked[place] for place in places]), said)

    def _real_examples(self, asked: list[int | str]) -> Tensor | None:
        """A real image (k, 3, H, H) of the reference for each condition; None where one of them has none there."""
        found = self._test_images
        images, conditions = self._read(found.images, found.start, min(found.num, REAL_EXAMPLES_READ))
        return images[[conditions.index(one) for one in asked]] if set(asked) <= set(conditions) else None

    def real_images(self, num: int) -> tuple[Tensor, dict[str, Any]] | None:
        training, evaluation = self.dataset.training_set, self.dataset.evaluation_set
        start = self._test_images.num if training is evaluation else 0
        images, conditions = self._read(training, start, num)
        return (images, {"conditions": conditions}) if len(images) >= num else None

    def ceiling(self, rebuilt: Tensor, about: dict[str, Any]) -> dict[str, Any]:
        if self.classifier is None:
            return {}
        right = self.classifier.classify(rebuilt).numpy() == np.array(about["conditions"])
        return {"prompt_accuracy_ceiling": float(right.mean())}
