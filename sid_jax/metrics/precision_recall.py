"""Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991): quality and diversity, apart."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

NEIGHBOURS = 3  # k of the paper
_ROWS = 1024  # of distances at a time, so that memory stays small


class PrecisionRecall(NamedTuple):
    """Shares, in [0, 1].

    Attributes:
      precision: of generated samples that lie within the manifold of the real ones.
      recall: of real samples that lie within the manifold of the generated ones.
    """

    precision: float
    recall: float


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOURS) -> PrecisionRecall:
    """Precision and recall of generated samples.

    The manifold of a set is the union of balls around its points. The radius of a ball is the distance from its point
    to the k-th nearest neighbour in the set. The values depend on N and M: compare only values that share both.

    Args:
      real: features `[N, D]`, N greater than k.
      generated: features `[M, D]`, M greater than k.
      k: which neighbour.

    Raises:
      ValueError: there are too few samples.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"{min(len(real), len(generated))} samples are too few: more than {k} are needed")
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    return PrecisionRecall(_share_within(generated, real, k), _share_within(real, generated, k))


def _share_within(points: np.ndarray, manifold: np.ndarray, k: int) -> float:
    # A point's nearest neighbour in its own set is the point itself. So the k-th other one is at place k, not at k - 1.
    radii = np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _squared_distances(manifold, manifold)])
    within = [np.any(d <= radii, axis=1) for d in _squared_distances(points, manifold)]
    return float(np.mean(np.concatenate(within)))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances `[rows, len(b)]` of a to b, some rows of a at a time."""
    for start in range(0, len(a), _ROWS):
        part = a[start : start + _ROWS]
        squares = np.square(part).sum(1)[:, None] + np.square(b).sum(1) - 2 * part @ b.T
        yield np.maximum(squares, 0)
