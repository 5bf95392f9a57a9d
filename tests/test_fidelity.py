"""FID and its relatives against definitions."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from bench.data.shapes_data import TokenizedShapes
from bench.data.shapes_render import render_captions
from bench.data.shapes_world import ShapesWorld
from bench.evaluate import fidelity
from bench.evaluate.fidelity import (
    FeatureNetwork,
    Reference,
    density_and_coverage,
    frechet_distance,
    jackknife,
    jackknife_blocks,
    kernel_distance,
    measure,
    neighbor_radius,
    within_kernel,
)
from bench.evaluate.latency import measure_speed, percentile
from bench.evaluate.shapes_clip import canonical_tokens
from bench.evaluate.world_judge import clip_features, load_clip


@pytest.fixture(scope="module")
def dataset() -> TokenizedShapes:
    return TokenizedShapes("shapes32")


@pytest.fixture(scope="module")
def network(dataset: TokenizedShapes) -> FeatureNetwork:
    """The suite's own CLIP."""
    return clip_features(dataset, load_clip(dataset))


def test_frechet_distance_of_known_gaussians() -> None:
    """N(0, 1) against N(m, s^2) per axis: sum of m^2 + (1 - s)^2."""
    generator = np.random.default_rng(0)
    a = generator.standard_normal((200_000, 4))
    b = generator.standard_normal((200_000, 4)) * np.array([1, 2, 0.5, 1]) + np.array([0, 1, 0, 3])
    assert frechet_distance(a, b) == pytest.approx((1 + 1) + 0.25 + 9, rel=0.01)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def kid(a: np.ndarray, b: np.ndarray) -> float:
    return kernel_distance(a, b, within_kernel(b))[0]


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    generator = np.random.default_rng(0)
    draws = [kid(generator.standard_normal((100, 8)), generator.standard_normal((100, 8))) for _ in range(200)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(200)
    assert kid(generator.standard_normal((300, 8)), generator.standard_normal((300, 8)) + 1) > 5 * np.std(draws)


def test_kernel_distance_of_identical_sets_is_about_zero() -> None:
    """The U-statistic of a set against itself: minus the share of its own diagonal, tiny and negative."""
    x = np.random.default_rng(0).standard_normal((500, 8))
    assert -0.2 < kid(x, x) <= 0


def test_jackknife_of_a_mean_and_of_a_biased_variance() -> None:
    """The error of a mean is its standard error; the bias of the variance with divisor n drops out exactly."""
    values = np.random.default_rng(0).standard_normal(1000)
    mean, error = jackknife(lambda rows: float(values[rows].mean()), np.arange(1000))
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(1000), rel=1e-6)
    assert mean == pytest.approx(values.mean(), abs=1e-9)
    corrected, _ = jackknife(lambda rows: float(values[rows].var()), np.arange(1000))
    assert corrected == pytest.approx(values.var(ddof=1), rel=1e-9)


def test_jackknife_removes_most_of_the_bias_of_fid() -> None:
    """Equal Gaussians in 32 dimensions, 500 against 20,000: the plain distance is biased upwards, the corrected one is not."""
    generator = np.random.default_rng(0)
    real = generator.standard_normal((20_000, 32))
    plain, corrected, errors = [], [], []
    for _ in range(8):
        a = generator.standard_normal((500, 32))
        plain.append(frechet_distance(a, real))
        value, error = jackknife(lambda rows: frechet_distance(a[rows], real), np.arange(500) % 10)
        corrected.append(value)
        errors.append(error)
    assert np.mean(plain) > 0.5
    assert abs(np.mean(corrected)) < 0.15 * np.mean(plain)
    assert np.mean(errors) == pytest.approx(np.std(plain, ddof=1), rel=1.0)


def test_correction_of_a_balanced_sample_deletes_whole_passes() -> None:
    """Forty captions far apart, each equally often: deleting passes finds a distance near 0, other deletions overshoot."""
    generator = np.random.default_rng(0)
    centers = 5 * generator.standard_normal((40, 8))
    real = np.repeat(centers, 500, 0) + generator.standard_normal((20_000, 8))
    passes, others = [], []
    for _ in range(8):
        a = np.tile(centers, (6, 1)) + generator.standard_normal((240, 8))
        statistic = lambda rows: frechet_distance(a[rows], real)  # noqa: E731
        passes.append(jackknife(statistic, np.arange(240) // 40)[0])
        others.append(jackknife(statistic, np.arange(240) % 10)[0])
    assert abs(np.mean(passes)) < 0.5 * abs(np.mean(others))


def test_kernel_distance_error_is_its_jackknife() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.standard_normal((100, 6)) + 0.2, generator.standard_normal((150, 6))
    slow = jackknife(lambda rows: kid(a[rows], b), np.arange(100) % 10)[1]
    assert kernel_distance(a, b, within_kernel(b))[1] == pytest.approx(slow, rel=1e-9)


def test_density_and_coverage_by_definition() -> None:
    """Equal distributions: density 1 and coverage 1 - 2^-5; a far set: 0 and 0; copies of one image: little coverage."""
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((1500, 4)), generator.standard_normal((1500, 4))
    density, coverage = density_and_coverage(a, b, neighbor_radius(b))
    assert density == pytest.approx(1.0, abs=0.05)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert density_and_coverage(a + 100, b, neighbor_radius(b)) == (0.0, 0.0)
    assert density_and_coverage(np.repeat(a[:1], 1500, 0), b, neighbor_radius(b))[1] < 0.05


def test_torch_fidelity_agrees_with_float64(network: FeatureNetwork, world: ShapesWorld) -> None:
    ids = np.resize(world.split_ids("test"), 400)
    real = torch.from_numpy(render_captions(world, ids, "test", 0))
    other = torch.from_numpy(render_captions(world, world.split_ids("held_out")[:400], "held_out", 5000))
    reference = Reference("test-reference", network.features(real))
    found = measure(network.features(other), reference)
    expected = frechet_distance(network.features(other), reference.features)
    assert found.fid == pytest.approx(expected, rel=1e-3)
    assert found.kid == pytest.approx(kid(network.features(other), reference.features), rel=1e-9)
    theirs = kid_features_to_metric(
        *(torch.from_numpy(network.features(images)).float() for images in (other, real)),
        kid_subsets=100,
        kid_subset_size=200,
        verbose=False,
    )
    spread = theirs["kernel_inception_distance_std"]
    assert found.kid == pytest.approx(theirs["kernel_inception_distance_mean"], abs=3 * spread / 10)
    same = measure(network.features(real), reference)
    assert same.fid == pytest.approx(0, abs=1e-3)
    assert same.precision == same.recall == 1
    assert found.fid > 10 * same.fid


def test_too_few_images_are_refused(network: FeatureNetwork) -> None:
    features = network.features(torch.zeros(10, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="at least 20 images"):
        measure(features, Reference("x", features))


def test_few_images_in_many_channels_have_the_same_distance() -> None:
    """With fewer images than channels the n x n eigenvalues give what d x d ones do."""
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((40, 60)) * 2, generator.standard_normal((200, 60)) + 1
    scales, vectors = np.linalg.eigh(np.cov(a, rowvar=False))
    root = (vectors * np.sqrt(np.clip(scales, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ np.cov(b, rowvar=False) @ root), 0, None)).sum()
    traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    assert frechet_distance(a, b) == pytest.approx(((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * cross, rel=1e-6)


def test_sums_over_parts_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """KID, its error, radii and coverage do not depend on how many rows are compared at once."""
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((150, 8)), generator.standard_normal((170, 8)) + 0.1
    whole = (*kernel_distance(a, b, within_kernel(b)), *density_and_coverage(a, b, neighbor_radius(b)))
    monkeypatch.setattr(fidelity, "ROWS_AT_ONCE", 32)
    assert (*kernel_distance(a, b, within_kernel(b)), *density_and_coverage(a, b, neighbor_radius(b))) == pytest.approx(whole)
    gram = (a @ a.T / 8 + 1) ** 3
    mean = (gram.sum() - np.trace(gram)) / (150 * 149)
    assert whole[0] == pytest.approx(mean + within_kernel(b) - 2 * ((a @ b.T / 8 + 1) ** 3).mean())


def test_no_jackknife_block_is_a_class() -> None:
    """Ten classes in turn: every block takes each class as often as the others do."""
    replicates = np.arange(1000) // 10
    blocks = jackknife_blocks(1000, replicates)
    for block in range(10):
        assert (np.bincount((np.arange(1000) % 10)[blocks == block], minlength=10) == 10).all()


def test_clip_reads_its_captions(dataset: TokenizedShapes, world: ShapesWorld) -> None:
    """Two captions never share an embedding; a true caption beats one with the objects swapped."""
    ids = world.split_ids("test")
    tokens = torch.from_numpy(world.caption_tokens[ids])
    clip = load_clip(dataset)
    with torch.inference_mode():
        read = clip.encode_captions(tokens)
        seen = clip.encode_images(torch.from_numpy(render_captions(world, ids, "test", 0)))[1]
        swapped = clip.encode_captions(tokens[:, [4, 5, 6, 3, 0, 1, 2]])
    gram = read @ read.T - 2 * torch.eye(len(read))
    assert float(gram.max()) < 0.9999
    assert float(((seen * read).sum(1) > (seen * swapped).sum(1)).float().mean()) > 0.95


def test_canonical_captions_rewrite_mirrored_relations() -> None:
    from bench.data.shapes_world import SHAPES64

    world = ShapesWorld(SHAPES64)
    below = torch.from_numpy(world.tokenize("a small red circle below a large blue ring"))[None]
    above = torch.from_numpy(world.tokenize("a large blue ring above a small red circle"))[None]
    assert torch.equal(canonical_tokens(world, below), above)
    assert torch.equal(canonical_tokens(world, above), above)


def test_percentiles_need_enough_calls() -> None:
    assert percentile([0.001] * 10, 50) is None
    assert percentile([0.001] * 11, 50) == pytest.approx(1.0)
    assert percentile([0.001] * 63, 90) is None
    calls: list[int] = []
    speed = measure_speed(calls.append, 12, (2, 4))
    assert calls == [1] * 13 + [2, 4]
    assert speed.latency_ms_b1_p50 is not None
    assert speed.latency_ms_b1_p90 is None
    assert speed.images_per_s_batch in (2, 4)


def test_shipped_autoencoders_reach_the_ceiling(dataset: TokenizedShapes, world: ShapesWorld) -> None:
    from bench.evaluate.verifier import verify

    ids = np.resize(world.split_ids("held_out"), 1000)
    real = torch.from_numpy(render_captions(world, ids, "held_out", 0))
    for part in ("autoencoder-kl", "autoencoder-fsq"):
        with torch.inference_mode():
            rebuilt = dataset.tokenizer(part).reconstruct(real)
        assert verify(world, rebuilt.numpy(), ids).exact.mean() >= 0.99
