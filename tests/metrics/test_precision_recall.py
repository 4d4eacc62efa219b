"""Improved precision and recall."""

import numpy as np
import pytest

from sid_jax.metrics.precision_recall import precision_recall


def by_hand(real, generated, k):
    def distance(a, b):
        return np.sqrt(np.square(a - b).sum())

    def within(points, manifold):
        radii = [sorted(distance(m, other) for other in manifold)[k] for m in manifold]
        return np.mean([any(distance(p, m) <= r for m, r in zip(manifold, radii, strict=True)) for p in points])

    return within(generated, real), within(real, generated)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 3])
def test_equals_the_definition(seed, k):
    rng = np.random.default_rng(seed)
    real, generated = rng.normal(size=(40, 3)), 0.8 * rng.normal(size=(30, 3)) + 0.5
    assert precision_recall(real, generated, k) == pytest.approx(by_hand(real, generated, k))


def test_sets_on_a_line():
    real = np.array([[0.0], [1], [2], [10], [11], [12]])
    one_mode = np.array([[0.2], [0.9], [1.4], [1.9]])
    assert precision_recall(real, one_mode, 1) == (1, 0.5)  # all of it looks real; half of what is real is missing
    too_wide = np.array([[0.0], [1], [11], [12], [5], [6], [30], [31]])
    assert precision_recall(real, too_wide, 1) == (0.5, 1)
    assert precision_recall(real, real + 100, 1) == (0, 0)


def test_distances_are_taken_in_parts():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(1500, 2)), rng.normal(size=(1100, 2)) + 1
    radius = np.sort(np.linalg.norm(real[:, None] - real, axis=-1), axis=1)[:, 3]
    expected = np.mean(np.any(np.linalg.norm(generated[:, None] - real, axis=-1) <= radius, axis=1))
    assert precision_recall(real, generated).precision == pytest.approx(expected)


def test_too_few_samples():
    with pytest.raises(ValueError, match="3 samples are too few"):
        precision_recall(np.zeros((9, 2)), np.zeros((3, 2)))
