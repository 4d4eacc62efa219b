"""Frechet distance between two sets of features (Heusel et al. 2017, arXiv 1706.08500)."""

from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """What the Frechet distance looks at in a set of features.

    Attributes:
      mean: `[D]` float64.
      covariance: `[D, D]` float64.
    """

    mean: np.ndarray
    covariance: np.ndarray


def statistics(features: np.ndarray) -> Statistics:
    """Mean and covariance of features.

    Args:
      features: `[N, D]`, N at least 2.
    """
    features = np.asarray(features, np.float64)
    return Statistics(features.mean(0), np.cov(features, rowvar=False))


class FrechetDistance:
    """|mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)) of one set a and any number of others.

    The trace of the root is computed from the eigenvalues of cov_a^(1/2) cov_b cov_a^(1/2). That product is symmetric,
    so no root of a nearly singular matrix has to be formed. Half of the work is the root of cov_a, which is done once.

    Args:
      a: of one set of features.
    """

    def __init__(self, a: Statistics) -> None:
        values, vectors = np.linalg.eigh(a.covariance)
        self._a, self._root = a, (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    def __call__(self, b: Statistics) -> float:
        """The distance, at least 0, to another set of the same width."""
        a, root = self._a, self._root
        product = np.linalg.eigvalsh(root @ b.covariance @ root)
        trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.maximum(product, 0)).sum()
        return float(max(np.square(a.mean - b.mean).sum() + trace, 0.0))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The distance of two sets; see `FrechetDistance`.

    Args:
      a: of one set of features.
      b: of the other, of the same width.
    """
    return FrechetDistance(a)(b)
