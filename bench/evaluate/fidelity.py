"""Fidelity: FID, KID, precision, recall, density, coverage, by torch-fidelity with the suite's own feature extractor.

Letters: n images, d feature channels.

torch-fidelity computes FID, precision and recall; what it does not give, the full U-statistic of KID, density and coverage,
standard errors and the correction of FID's bias, is computed here on the same features in float64. Statistics are cached under
names that hold the hashes of weights and data, since that cache trusts names alone.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from bench.evaluate.clip import FEATURE_DIM, ShapesCLIP

JACKKNIFE_BLOCKS = 10
PRECISION_NEIGHBORS = 3
"""k of precision and recall (Kynkäänniemi et al. 2019)."""
DENSITY_NEIGHBORS = 5
"""k of density and coverage (Naeem et al. 2020)."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Metrics of one set of generated images against the reference."""

    fid: float
    fid_unbiased: float
    fid_se: float
    kid: float
    kid_se: float
    precision: float
    recall: float
    density: float
    coverage: float


class ImageSet(Dataset[Tensor]):
    """uint8 images (n, 3, H, H) one by one, as torch-fidelity wants them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def register_extractor(clip: ShapesCLIP, weights_hash: str) -> str:
    """Make the small CLIP's pooled features known to torch-fidelity; returns the extractor's name."""
    name = f"shapes-clip-{weights_hash}"
    if name in FEATURE_EXTRACTORS_REGISTRY:
        return name

    class Extractor(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
            super().__init__(name, features_list)
            self.clip = clip

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("pooled",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "pooled"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            return (self.clip.encode_images(images)[0],)

    register_feature_extractor(name, Extractor)
    return name


@torch.inference_mode()
def features(clip: ShapesCLIP, images: Tensor, batch: int = 256) -> np.ndarray:
    """Pooled features (n, d) float64."""
    return torch.cat([clip.encode_images(part)[0] for part in images.split(batch)]).double().numpy()


@dataclass(frozen=True)
class Reference:
    """Real images with their features, and a name that must change whenever the images do. What all comparisons share is computed
    once."""

    name: str
    images: Tensor  # (m, 3, H, H) uint8
    features: np.ndarray  # (m, d) float64

    @classmethod
    def of(cls, name: str, images: Tensor, clip: ShapesCLIP) -> Reference:
        return cls(name, images, features(clip, images))

    @cached_property
    def within(self) -> float:
        """KID's kernel over pairs of the reference."""
        return within_kernel(self.features)

    @cached_property
    def radius(self) -> np.ndarray:
        """Distance of each image (m,) to its k-th neighbor for density and coverage."""
        return neighbor_radius(self.features)


def measure(
    extractor: str, clip: ShapesCLIP, images: Tensor, reference: Reference, cache: Path, *, replicates: np.ndarray | None = None
) -> Fidelity:
    """All fidelity metrics of generated images (n, 3, H, H) uint8 against real ones.

    Args:
        replicates: which pass over a balanced list of captions each image (n,) belongs to; None for independent images.
        cache: folder for the reference's features.

    Raises:
        ValueError: for fewer images than the feature has channels, where the covariance would be singular.
    """
    if len(images) <= FEATURE_DIM:
        raise ValueError(f"FID needs more than {FEATURE_DIM} images, not {len(images)}; raise num_samples")
    with contextlib.redirect_stderr(io.StringIO()):
        found = calculate_metrics(
            input1=ImageSet(images),
            input2=ImageSet(reference.images),
            feature_extractor=extractor,
            fid=True,
            prc=True,
            prc_neighborhood=PRECISION_NEIGHBORS,
            cuda=False,
            save_cpu_ram=True,
            batch_size=256,
            cache_root=str(cache),
            input2_cache_name=reference.name,
            verbose=False,
        )
    generated, real = features(clip, images), reference.features
    fid = float(found["frechet_inception_distance"])
    distance = lambda rows: frechet_distance(generated[rows], real)  # noqa: E731
    blocks = np.arange(len(generated)) % JACKKNIFE_BLOCKS
    passes = blocks if replicates is None else replicates
    fid_se, fid_unbiased = jackknife(distance, blocks)[1], math.nan
    if len(np.unique(passes)) > 1 and np.bincount(passes).max() < len(generated) - FEATURE_DIM:
        fid_unbiased = jackknife(distance, passes)[0]
    kid, kid_se = kernel_distance(generated, real, reference.within)
    density, coverage = density_and_coverage(generated, real, reference.radius)
    return Fidelity(
        fid=fid,
        fid_unbiased=fid_unbiased,
        fid_se=fid_se,
        kid=kid,
        kid_se=kid_se,
        precision=float(found["precision"]),
        recall=float(found["recall"]),
        density=density,
        coverage=coverage,
    )


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the Gaussians fitted to features (n, d) and (m, d), float64, by symmetric eigenvalues."""
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cubic kernel (x.y / d + 1)^3 of KID (Binkowski et al. 2018)."""
    product = x @ y.T / x.shape[1] + 1
    return product * product * product


def _within(gram: np.ndarray) -> float:
    """Mean of a set's kernel over its ordered pairs of different members."""
    return float((gram.sum() - np.trace(gram)) / (len(gram) * (len(gram) - 1)))


def within_kernel(x: np.ndarray) -> float:
    """KID's kernel over the ordered pairs of different members of a set (n, d)."""
    return _within(_kernel(x, x))


def kernel_distance(a: np.ndarray, b: np.ndarray, within_b: float) -> tuple[float, float]:
    """Unbiased squared MMD of features (n, d) and (m, d) with KID's kernel, the full U-statistic, which may be negative; and its
    jackknife standard error over the rows of a. within_b is `within_kernel` of b."""
    within, between = _kernel(a, a), _kernel(a, b).mean(1)

    def statistic(rows: np.ndarray) -> float:
        return _within(within[np.ix_(rows, rows)]) + within_b - 2 * float(between[rows].mean())

    return statistic(np.arange(len(a))), jackknife(statistic, np.arange(len(a)) % JACKKNIFE_BLOCKS)[1]


def neighbor_radius(x: np.ndarray, neighbors: int = DENSITY_NEIGHBORS) -> np.ndarray:
    """Distance of each member (n,) of a set (n, d) to its k-th neighbor."""
    return np.partition(cdist(x, x), neighbors, axis=1)[:, neighbors]  # place 0 is the member itself


def density_and_coverage(generated: np.ndarray, real: np.ndarray, radius: np.ndarray) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020) of features (n, d) against (m, d) whose balls have a radius (m,).

    Density: real balls per generated image over k. Coverage: share of real images whose ball holds a generated one. Equal
    distributions give 1 and, for n = m, about 1 - 2^-k.
    """
    inside = cdist(real, generated) < radius[:, None]
    return float(inside.sum() / (DENSITY_NEIGHBORS * len(generated))), float(inside.any(1).mean())


def jackknife(statistic: Callable[[np.ndarray], float], groups: np.ndarray) -> tuple[float, float]:
    """Bias-corrected statistic and its standard error, deleting one group (n,) of the generated images at a time.

    A plain bootstrap would add FID's bias again; its first-order bias, c / n, drops out here. Where the captions are a balanced
    list, only whole passes over the list may be deleted to correct the bias: any other deletion unbalances what is left and the
    correction comes out too large (measured: -0.2 for images whose plain distance is the floor's). Errors from other groups are
    then a little too large.
    """
    rows, labels = np.arange(len(groups)), np.unique(groups)
    values = np.array([statistic(rows[groups != label]) for label in labels])
    number = len(labels)
    sizes = np.array([(groups != label).sum() for label in labels])
    # F(n) = F + c / n: extrapolate from the mean distance of the reduced sets to the full one and on to infinity
    weight = (1 / sizes).mean() * len(groups)
    full = statistic(rows)
    corrected = full - (values.mean() - full) / (weight - 1)
    return float(corrected), float(np.sqrt((number - 1) / number * ((values - values.mean()) ** 2).sum()))
