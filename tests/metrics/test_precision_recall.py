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


def test_points_on_the_edges_of_balls_and_points_that_are_there_twice():
    """What float32 can't tell is told in float64: every point is as far from a ball's middle as the ball's radius."""
    rng = np.random.default_rng(0)
    real = (1000 + rng.normal(size=(70, 40))).astype(np.float32)
    nearest = np.argsort(np.linalg.norm(real[:, None].astype(np.float64) - real, axis=-1), axis=1)[:, 3]
    assert precision_recall(real, real[nearest]).precision == 1
    further = real + (1 + 1e-6) * (real[nearest].astype(np.float64) - real)
    assert precision_recall(real, further) == by_hand_exactly(real, further)
    assert precision_recall(real, np.repeat(real, 5, axis=0)) == (1, 1)
    assert precision_recall(np.repeat(real, 4, axis=0), real + 1e-3).precision == 0


def by_hand_exactly(real, generated, k=3):
    real, generated = (np.asarray(each, np.float64) for each in (real, generated))

    def within(points, manifold):
        radii = np.sort(np.square(manifold[:, None] - manifold).sum(-1), axis=1)[:, k]
        return np.mean((np.square(points[:, None] - manifold).sum(-1) <= radii).any(1))

    return within(generated, real), within(real, generated)


def test_several_tiles_of_columns(monkeypatch):
    monkeypatch.setattr("sid_jax.metrics.precision_recall._COLUMNS", 64)
    monkeypatch.setattr("sid_jax.metrics.precision_recall._AGAIN", 1000)
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(300, 3)), 0.8 * rng.normal(size=(200, 3)) + 0.5
    assert precision_recall(real, generated) == by_hand_exactly(real, generated)


def test_too_few_samples():
    with pytest.raises(ValueError, match="3 samples are too few"):
        precision_recall(np.zeros((9, 2)), np.zeros((3, 2)))
