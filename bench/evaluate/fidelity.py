"""Fidelity: FID, KID, precision, recall, density, coverage, Inception Score, by torch-fidelity over any feature network.

Letters: n images, d feature channels.

torch-fidelity computes FID, precision and recall; what it does not give, the full U-statistic of KID, density and coverage,
standard errors and the correction of FID's bias, is computed here on the same features in float64. Statistics are cached under
names that hold the hashes of weights and data, since that cache trusts names alone.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

JACKKNIFE_BLOCKS = 10
MIN_IMAGES = 2 * JACKKNIFE_BLOCKS
ROWS_AT_ONCE = 2048
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
    inception_score: float | None = None
    """Only of a network with class logits."""


class Images(Protocol):
    """uint8 images (3, H, H) by index: a tensor, or what reads them from disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


@dataclass(frozen=True)
class FeatureNetwork:
    """A frozen network whose features stand for an image."""

    name: str
    """Must change whenever the features do: it holds the hash of the weights, and how images are resized where they are."""
    dim: int
    forward: Callable[[Tensor], tuple[Tensor, ...]]
    """uint8 images (B, 3, H, H) to features (B, d) and, for the Inception Score, class logits (B, classes)."""
    has_logits: bool = False
    batch: int = 256

    @torch.inference_mode()
    def features(self, images: Images) -> np.ndarray:
        """Features (n, d) float64."""
        parts = []
        for start in range(0, len(images), self.batch):
            rows = range(start, min(start + self.batch, len(images)))
            part = images[rows.start : rows.stop] if isinstance(images, Tensor) else torch.stack([images[i] for i in rows])
            parts.append(self.forward(part)[0].cpu())
        return torch.cat(parts).double().numpy()


class ImageDataset(Dataset[Tensor]):
    """Images one by one, as torch-fidelity wants them."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def register_extractor(network: FeatureNetwork) -> None:
    """Make a network known to torch-fidelity under its name."""
    if network.name in FEATURE_EXTRACTORS_REGISTRY:
        return

    class Extractor(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features", "logits")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            found = dict(zip(("features", "logits"), network.forward(images), strict=False))
            return tuple(found[name] for name in self.features_list)

    register_feature_extractor(network.name, Extractor)


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and covariance (d, d) of features, float64: all that the Frechet distance knows of a set."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        return cls(features.mean(0), np.cov(features, rowvar=False))


@dataclass(frozen=True)
class Reference:
    """Real images with their features, and a name that must change whenever the images do. What all comparisons share is computed
    once."""

    name: str
    images: Images  # m of them
    features: np.ndarray  # (m, d) float64
    published: Gaussian | None = None
    """Statistics of a larger reference, which the Frechet distance uses instead."""

    @classmethod
    def of(cls, name: str, images: Images, network: FeatureNetwork) -> Reference:
        return cls(name, images, network.features(images))

    @cached_property
    def gaussian(self) -> Gaussian:
        """What the Frechet distance compares with."""
        return self.published or Gaussian.of(self.features)

    @cached_property
    def within(self) -> float:
        """KID's kernel over pairs of the reference."""
        return within_kernel(self.features)

    @cached_property
    def radius(self) -> np.ndarray:
        """Distance of each image (m,) to its k-th neighbor for density and coverage."""
        return neighbor_radius(self.features)


def measure(
    network: FeatureNetwork, images: Tensor, reference: Reference, cache: Path, *, replicates: np.ndarray | None = None
) -> Fidelity:
    """All fidelity metrics of generated images (n, 3, H, H) uint8 against real ones.

    Args:
        replicates: which pass over a balanced list of captions each image (n,) belongs to; None for independent images.
        cache: folder for the reference's features.

    Raises:
        ValueError: for too few images to have neighbors and a jackknife.
    """
    if len(images) < MIN_IMAGES:
        raise ValueError(f"fidelity needs at least {MIN_IMAGES} images, not {len(images)}; raise num_samples")
    register_extractor(network)
    with contextlib.redirect_stderr(io.StringIO()):
        found = calculate_metrics(
            input1=ImageDataset(images),
            input2=ImageDataset(reference.images),
            feature_extractor=network.name,
            fid=reference.published is None,
            isc=network.has_logits,
            prc=True,
            prc_neighborhood=PRECISION_NEIGHBORS,
            cuda=False,
            save_cpu_ram=True,
            batch_size=network.batch,
            cache_root=str(cache),
            input2_cache_name=reference.name,
            verbose=False,
        )
    generated, real = network.features(images), reference.features
    distance = lambda rows: frechet_distance(generated[rows], reference.gaussian)  # noqa: E731
    fid = float(found.get("frechet_inception_distance", math.nan)) if reference.published is None else distance(slice(None))
    blocks = jackknife_blocks(len(generated), replicates)
    passes = blocks if replicates is None else replicates
    fid_se, fid_unbiased = jackknife(distance, blocks)[1], math.nan
    if len(np.unique(passes)) > 1 and np.bincount(passes).max() < len(generated) - network.dim:
        fid_unbiased = jackknife(distance, passes)[0]
    kid, kid_se = kernel_distance(generated, real, reference.within, blocks)
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
        inception_score=float(found["inception_score_mean"]) if network.has_logits else None,
    )


def frechet_distance(a: np.ndarray, b: np.ndarray | Gaussian) -> float:
    """Frechet distance of the Gaussian fitted to features (n, d) and that of features (m, d), or a given one; float64, by
    symmetric eigenvalues, of the smaller of d x d and n x n."""
    b = b if isinstance(b, Gaussian) else Gaussian.of(b)
    mean, centered = a.mean(0), (a - a.mean(0)) / np.sqrt(len(a) - 1)
    if len(a) <= a.shape[1]:  # the eigenvalues of S_a S_b that are not 0 are those of X S_b X^T, n x n, where S_a = X^T X
        values, trace = np.linalg.eigvalsh(centered @ b.covariance @ centered.T), np.square(centered).sum()
    else:
        covariance = np.cov(a, rowvar=False)
        scales, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(np.clip(scales, 0, None))) @ vectors.T
        values, trace = np.linalg.eigvalsh(root @ b.covariance @ root), np.trace(covariance)
    cross = np.sqrt(np.clip(values, 0, None)).sum()
    return float(((mean - b.mean) ** 2).sum() + trace + np.trace(b.covariance) - 2 * cross)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cubic kernel (x.y / d + 1)^3 of KID (Binkowski et al. 2018)."""
    product = x @ y.T / x.shape[1] + 1
    return product * product * product


def _parts(x: np.ndarray) -> Iterator[np.ndarray]:
    """A set's rows, a few at a time: pairs of 50,000 images do not fit into memory at once."""
    return (x[start : start + ROWS_AT_ONCE] for start in range(0, len(x), ROWS_AT_ONCE))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    return float(sum(_kernel(part, y).sum() for part in _parts(x)))


def _self_pairs(x: np.ndarray) -> float:
    """Sum of the kernel of each member with itself."""
    return float(((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum())


def within_kernel(x: np.ndarray) -> float:
    """Mean of KID's kernel over the ordered pairs of different members of a set (n, d)."""
    return (_kernel_sum(x, x) - _self_pairs(x)) / (len(x) * (len(x) - 1))


def jackknife_blocks(num: int, replicates: np.ndarray | None) -> np.ndarray:
    """Which of JACKKNIFE_BLOCKS blocks each image (n,) is deleted with: every tenth one; where a pass over the conditions has a
    multiple of ten, one place further in each pass, so that no block is one class."""
    places = np.arange(num)
    if replicates is not None and np.bincount(replicates)[0] % JACKKNIFE_BLOCKS == 0:
        places = places + replicates
    return places % JACKKNIFE_BLOCKS


def kernel_distance(a: np.ndarray, b: np.ndarray, within_b: float, blocks: np.ndarray | None = None) -> tuple[float, float]:
    """Unbiased squared MMD of features (n, d) and (m, d) with KID's kernel, the full U-statistic, which may be negative; and its
    jackknife standard error over blocks (n,) of rows of a. within_b is `within_kernel` of b."""
    blocks = jackknife_blocks(len(a), None) if blocks is None else blocks
    parts = [a[blocks == block] for block in range(JACKKNIFE_BLOCKS)]
    pairs = np.array([[_kernel_sum(one, other) for other in parts] for one in parts])
    itself, across = np.array([_self_pairs(one) for one in parts]), np.array([_kernel_sum(one, b) for one in parts])
    sizes = np.array([len(one) for one in parts])

    def statistic(kept: np.ndarray) -> float:
        num = int(sizes[kept].sum())
        within = (pairs[np.ix_(kept, kept)].sum() - itself[kept].sum()) / (num * (num - 1))
        return float(within + within_b - 2 * across[kept].sum() / (num * len(b)))

    return statistic(np.arange(JACKKNIFE_BLOCKS)), jackknife(statistic, np.arange(JACKKNIFE_BLOCKS))[1]


def neighbor_radius(x: np.ndarray, neighbors: int = DENSITY_NEIGHBORS) -> np.ndarray:
    """Distance of each member (n,) of a set (n, d) to its k-th neighbor."""
    # place 0 is the member itself
    return np.concatenate([np.partition(cdist(part, x), neighbors, axis=1)[:, neighbors] for part in _parts(x)])


def density_and_coverage(generated: np.ndarray, real: np.ndarray, radius: np.ndarray) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020) of features (n, d) against (m, d) whose balls have a radius (m,).

    Density: real balls per generated image over k. Coverage: share of real images whose ball holds a generated one. Equal
    distributions give 1 and, for n = m, about 1 - 2^-k.
    """
    pairs = zip(_parts(real), _parts(radius), strict=True)
    held = np.concatenate([(cdist(part, generated) < limit[:, None]).sum(1) for part, limit in pairs])
    return float(held.sum() / (DENSITY_NEIGHBORS * len(generated))), float((held > 0).mean())


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
