"""Frechet distance."""

import numpy as np
import pytest
import scipy.linalg

from sid_jax.metrics.frechet import Statistics, frechet_distance, statistics


def random_statistics(seed, size=6, rank=None):
    factors = np.random.default_rng(seed).normal(size=(rank or 2 * size, size))
    return Statistics(np.random.default_rng(seed + 100).normal(size=size), factors.T @ factors)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula_with_the_matrix_root(seed):
    a, b = random_statistics(seed), random_statistics(seed + 10)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_of_gaussians_on_a_line():
    a, b = Statistics(np.array([1.0]), np.array([[4.0]])), Statistics(np.array([4.0]), np.array([[9.0]]))
    assert frechet_distance(a, b) == pytest.approx((1 - 4) ** 2 + (2 - 3) ** 2)


def test_is_zero_only_for_equal_statistics_also_where_a_covariance_is_singular():
    a = random_statistics(0, rank=2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, Statistics(a.mean, 1.5 * a.covariance)) > 0.1


def test_statistics_of_features():
    features = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found = statistics(features)
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-5)
