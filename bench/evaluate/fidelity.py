"""Fidelity: FID, KID, precision, recall, density, coverage, Inception Score, by torch-fidelity over any feature network.

Letters: n images, d feature channels.

torch-fidelity computes FID, precision, recall and the Inception Score; what it does not give, the full U-statistic of KID,
density and coverage, standard errors and the correction of FID's bias, is computed here on the same features in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

JACKKNIFE_BLOCKS = 10
MIN_IMAGES = 2 * JACKKNIFE_BLOCKS
ROWS_AT_ONCE, PAIRS_AT_ONCE = 2048, 2048 * 20_480
"""Pairs of images that are compared together, 335 MB: fewer rows against sets above 20,480, so that sums of pairs with up to
20,000 reference images, the experiments' most, are added in one order."""
PRECISION_BATCH = 10_000
"""torch-fidelity's own."""
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


@dataclass(frozen=True)
class FeatureNetwork:
    """A frozen network whose features stand for an image."""

    name: str
    """Must change whenever the features do: it holds the hash of the weights, and how images are resized where they are."""
    dim: int
    forward: Callable[[Tensor], tuple[Tensor, ...]]
    """uint8 images (B, 3, H, H) to features (B, d) and, for the Inception Score, class logits (B, classes)."""
    batch: int = 256

    @torch.inference_mode()
    def read(self, images: Tensor) -> list[np.ndarray]:
        """All that `forward` gives of images (n, 3, H, H) uint8, float64."""
        chunks = [self.forward(chunk) for chunk in images.split(self.batch)]
        return [torch.cat(found).double().cpu().numpy() for found in zip(*chunks, strict=True)]

    def features(self, images: Tensor) -> np.ndarray:
        """Features (n, d) float64 of images (n, 3, H, H) uint8."""
        return self.read(images)[0]

    def look(self, images: Tensor, rows: slice) -> dict[str, np.ndarray]:
        """The same as `features` (B, d), with the class logits `logits` (B, classes) where the network has any, of a chunk."""
        return dict(zip(("features", "logits"), self.read(images), strict=False))


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and covariance (d, d) of features, float64: all that the Frechet distance knows of a set."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """Fit to features (n, d)."""
        return cls(features.mean(0), np.cov(features, rowvar=False))


@dataclass(frozen=True)
class Reference:
    """Features of real images, and a name that changes whenever the images do. What all comparisons share is computed once."""

    name: str
    features: np.ndarray  # (m, d) float64
    published: Gaussian | None = None
    """Statistics of a larger reference, which the Frechet distance uses instead."""

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
    generated: np.ndarray, reference: Reference, replicates: np.ndarray | None = None, logits: np.ndarray | None = None
) -> Fidelity:
    """All fidelity metrics of generated images, by their features (n, d), against real ones.

    Args:
        replicates: which pass over a balanced list of captions each image (n,) belongs to; None for independent images.
        logits: of the classes (n, classes), for the Inception Score.

    Raises:
        ValueError: for too few images to have neighbors and a jackknife.
    """
    if len(generated) < MIN_IMAGES:
        raise ValueError(f"fidelity needs at least {MIN_IMAGES} images, not {len(generated)}; raise num_samples")
    real, gaussian = reference.features, reference.gaussian
    theirs = {"mu": gaussian.mean, "sigma": gaussian.covariance}
    fid = fid_statistics_to_metric(fid_features_to_statistics(torch.from_numpy(generated)), theirs, False)[KEY_METRIC_FID]
    near = prc_features_to_metric(
        torch.from_numpy(generated).float(),
        torch.from_numpy(real).float(),
        prc_neighborhood=PRECISION_NEIGHBORS,
        prc_batch_size=PRECISION_BATCH,
        save_cpu_ram=True,
        verbose=False,
    )
    distance = lambda rows: frechet_distance(generated[rows], reference.gaussian)  # noqa: E731
    blocks = jackknife_blocks(len(generated), replicates)
    passes = blocks if replicates is None else replicates
    fid_se, fid_unbiased = jackknife(distance, blocks)[1], math.nan
    if len(np.unique(passes)) > 1 and np.bincount(passes).max() < len(generated) - generated.shape[1]:
        fid_unbiased = jackknife(distance, passes)[0]
    kid, kid_se = kernel_distance(generated, real, reference.within, blocks)
    density, coverage = density_and_coverage(generated, real, reference.radius)
    return Fidelity(
        fid=fid,
        fid_unbiased=fid_unbiased,
        fid_se=fid_se,
        kid=kid,
        kid_se=kid_se,
        precision=float(near["precision"]),
        recall=float(near["recall"]),
        density=density,
        coverage=coverage,
        inception_score=None if logits is None else isc_features_to_metric(torch.from_numpy(logits))[KEY_METRIC_ISC_MEAN],
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


def frechet_with_error(a: np.ndarray, b: Gaussian, replicates: np.ndarray | None) -> tuple[float, float]:
    """Frechet distance of features (n, d) and its jackknife standard error."""
    return frechet_distance(a, b), jackknife(lambda rows: frechet_distance(a[rows], b), jackknife_blocks(len(a), replicates))[1]


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cubic kernel (x.y / d + 1)^3 of KID (Binkowski et al. 2018)."""
    product = x @ y.T / x.shape[1] + 1
    return product * product * product


def _chunks(x: np.ndarray, num_others: int) -> Iterator[np.ndarray]:
    """A set's rows, a few at a time: their pairs with the rows of another do not fit into memory at once."""
    rows = max(1, min(ROWS_AT_ONCE, PAIRS_AT_ONCE // num_others))
    return (x[start : start + rows] for start in range(0, len(x), rows))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    return float(sum(_kernel(part, y).sum() for part in _chunks(x, len(y))))


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
    return np.concatenate([np.partition(cdist(part, x), neighbors, axis=1)[:, neighbors] for part in _chunks(x, len(x))])


def density_and_coverage(generated: np.ndarray, real: np.ndarray, radius: np.ndarray) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020) of features (n, d) against (m, d) whose balls have a radius (m,).

    Density: real balls per generated image over k. Coverage: share of real images whose ball holds a generated one. Equal
    distributions give 1 and, for n = m, about 1 - 2^-k.
    """
    pairs = zip(_chunks(real, len(generated)), _chunks(radius, len(generated)), strict=True)
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
