"""Moments in blocks, and the jackknife of the Frechet distance."""

import numpy as np
import pytest

from sid_jax.metrics.frechet import Statistics, frechet_distance, statistics
from sid_jax.metrics.moments import BlockedMoments


def moments_of(features, batch=37):
    moments = BlockedMoments(features.shape[1])
    for start in range(0, len(features), batch):
        rows = np.arange(start, min(start + batch, len(features)))
        moments.add(features[rows], rows)
    return moments


def drawn(seed, count, width):
    """Features of a Gaussian with mean 0.3 and unlike variances, as far as float32 has them."""
    rng = np.random.default_rng(seed)
    return (0.3 + rng.normal(size=(count, width)) * np.linspace(0.5, 1.5, width)).astype(np.float32)


def test_statistics_are_those_of_all_features():
    features = drawn(0, 5003, 7)
    found, expected = moments_of(features).statistics(), statistics(features)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-11, atol=1e-13)


def test_an_image_belongs_to_the_block_of_its_number():
    features = drawn(1, 400, 3)
    moments, order = BlockedMoments(3), np.random.default_rng(0).permutation(400)
    for rows in np.split(order, 20):
        moments.add(features[rows], rows)
    for name, array in moments.arrays().items():
        np.testing.assert_allclose(array, moments_of(features).arrays()[name], rtol=1e-12)
    np.testing.assert_allclose(moments.arrays()["sums"][3], features[3::10].sum(0, dtype=np.float64), rtol=1e-12)


def test_what_was_saved_goes_on():
    features = drawn(2, 300, 4)
    moments = moments_of(features[:111])
    again = BlockedMoments.from_arrays({name: array.copy() for name, array in moments.arrays().items()})
    again.add(features[111:], np.arange(111, 300))
    assert again.count == 300
    np.testing.assert_allclose(again.statistics().covariance, statistics(features).covariance, rtol=1e-11)


@pytest.mark.parametrize("change", [{"sums": np.zeros((10, 5))}, {"counts": np.zeros(10)}, {"products": np.zeros(())}])
def test_other_arrays_are_refused(change):
    with pytest.raises(ValueError, match="not the sums of features"):
        BlockedMoments.from_arrays(BlockedMoments(4).arrays() | change)


def test_too_few_images_and_features_of_another_width():
    moments = moments_of(drawn(3, 19, 4))
    with pytest.raises(ValueError, match="19 images are too few: at least 20"):
        moments.frechet(statistics(drawn(3, 50, 4)))
    with pytest.raises(ValueError, match="of width 4"):
        moments.add(np.zeros((2, 5)), np.arange(2))
    with pytest.raises(ValueError, match="0 images are too few"):
        BlockedMoments(4).statistics()


def test_the_value_is_the_distance_of_all_images():
    features, reference = drawn(4, 500, 6), statistics(drawn(5, 800, 6) * 1.2)
    assert moments_of(features).frechet(reference).value == pytest.approx(
        frechet_distance(statistics(features), reference), rel=1e-9
    )


def test_the_jackknife_of_gaussians_with_a_known_distance():
    """Over 20 repeats its value has no bias left, though the plain one has, and its error is the values' spread."""
    width, count, repeats = 24, 400, 20
    scale = np.linspace(0.5, 1.5, width)
    reference = Statistics(np.full(width, 0.2), np.diag((1.1 * scale) ** 2))
    known = width * 0.1**2 + np.square(0.1 * scale).sum()
    found = [moments_of(drawn(seed, count, width)).frechet(reference) for seed in range(repeats)]
    values, errors, unbiased = map(np.array, zip(*found, strict=True))
    of_the_mean = unbiased.std(ddof=1) / np.sqrt(repeats)
    assert abs(unbiased.mean() - known) < 2 * of_the_mean
    assert values.mean() - known > 10 * of_the_mean
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.4)
