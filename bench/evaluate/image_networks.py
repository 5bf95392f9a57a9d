"""The networks that judge a data set of images, loaded from this machine, and the published statistics of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.image_data import TokenizedImages
from bench.evaluate import fidelity, pretrained
from bench.evaluate.classifier import FEATURE_DIM, Classifier

CLASSIFIER = "classifier"
"""The suite's own judge of classes, as its file and JudgeConfig.features call it."""


@dataclass(frozen=True)
class Networks:
    """The networks that judge a data set of images; None where the experiment names none."""

    features: fidelity.FeatureNetwork
    classifier: Classifier | None
    dinov2: fidelity.FeatureNetwork | None
    clip: pretrained.ClipScore | None


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
