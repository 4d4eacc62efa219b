"""Mean and covariance of features that are never all in memory, and how sure a Frechet distance from them is."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sid_jax.metrics.frechet import FrechetDistance, Statistics

BLOCKS = 10
_WAITING = 256  # rows of a block that are added at once: a product of fewer takes as long, since it is bound by memory


class Estimate(NamedTuple):
    """A value of a finite number of images, and how sure it is.

    Attributes:
      value: of all the images: what papers report.
      standard_error: of `value`, by the jackknife.
      unbiased: the value without the part of its bias that falls as 1/n: what it tends to with more images.
    """

    value: float
    standard_error: float
    unbiased: float


class BlockedMoments:
    """Count, sum and sum of squares of features in float64, in blocks: image i belongs to block i mod `blocks`.

    Blocks take 8 D^2 bytes each, 34 MB for D = 2048. What is left when one of them is left out is a set of images as
    well, which the jackknife needs.

    Args:
      width: D, numbers of a feature.
      blocks: how many.
    """

    def __init__(self, width: int, blocks: int = BLOCKS) -> None:
        self.width, self.blocks = width, blocks
        self._counts = np.zeros(blocks, np.int64)
        self._sums = np.zeros((blocks, width))
        self._products = np.zeros((blocks, width, width))
        self._waiting: list[list[np.ndarray]] = [[] for _ in range(blocks)]

    def add(self, features: np.ndarray, rows: np.ndarray) -> None:
        """Adds images, each of them once.

        Args:
          features: `[n, D]`.
          rows: `[n]`, the number of each image.

        Raises:
          ValueError: the shapes are others.
        """
        if features.shape != (len(rows), self.width):
            raise ValueError(f"features {features.shape} of {len(rows)} images of width {self.width}")
        block_of = np.asarray(rows) % self.blocks
        for block in np.unique(block_of):
            self._waiting[block].extend(features[block_of == block])
            if len(self._waiting[block]) >= _WAITING:
                self._sum_up(block)

    @property
    def count(self) -> int:
        """How many images were added."""
        return int(self._counts.sum()) + sum(map(len, self._waiting))

    def statistics(self) -> Statistics:
        """Mean and covariance of all images, as `frechet.statistics` has them.

        Raises:
          ValueError: there are fewer than two.
        """
        self._sum_up_all()
        return _statistics(self._counts.sum(), self._sums.sum(0), self._products.sum(0))

    def frechet(self, reference: Statistics) -> Estimate:
        """The Frechet distance to a reference of the same width, with the delete-one-block jackknife (Quenouille 1956).

        Of G blocks, d_g is the distance without block g and m the mean of them: G d - (G - 1) m has no bias of order
        1/n, and the standard error is the root of (G - 1) / G sum (d_g - m)^2.

        Raises:
          ValueError: there are too few images for that: at least twice as many as blocks are needed.
        """
        if self.count < 2 * self.blocks:
            raise ValueError(f"{self.count} images are too few: at least {2 * self.blocks} are needed")
        self._sum_up_all()
        distance = FrechetDistance(reference)
        whole = self._counts.sum(), self._sums.sum(0), self._products.sum(0)
        value = distance(_statistics(*whole))
        without = np.array([
            distance(_statistics(*(total - part for total, part in zip(whole, block, strict=True))))
            for block in zip(self._counts, self._sums, self._products, strict=True)
        ])  # fmt: skip
        return jackknife(value, without)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that it has, by name, for a file that a measurement goes on from."""
        self._sum_up_all()
        return {"counts": self._counts, "sums": self._sums, "products": self._products}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "BlockedMoments":
        """What `arrays` was given by; the arrays are its own from now on.

        Raises:
          ValueError: they are others than those.
        """
        counts, sums, products = (arrays.get(name, np.zeros(())) for name in ("counts", "sums", "products"))
        blocks, width = sums.shape if sums.ndim == 2 else (0, 0)
        known = counts.shape == (blocks,) and products.shape == (blocks, width, width) and blocks and width
        if not known or (counts.dtype, sums.dtype, products.dtype) != (np.int64, np.float64, np.float64):
            raise ValueError("not the sums of features")
        moments = cls.__new__(cls)
        moments.width, moments.blocks = width, blocks
        moments._counts, moments._sums, moments._products = counts, sums, products
        moments._waiting = [[] for _ in range(blocks)]
        return moments

    def _sum_up_all(self) -> None:
        for block in range(self.blocks):
            self._sum_up(block)

    def _sum_up(self, block: int) -> None:
        """Adds the features that wait."""
        waiting, self._waiting[block] = self._waiting[block], []
        if waiting:
            features = np.stack(waiting).astype(np.float64)
            self._counts[block] += len(features)
            self._sums[block] += features.sum(0)
            self._products[block] += features.T @ features


def jackknife(value: float, without: np.ndarray) -> Estimate:
    """What values without one block each, `[G]`, say of the value of all; see `BlockedMoments.frechet`."""
    blocks, mean = len(without), float(without.mean())
    error = float(np.sqrt((blocks - 1) / blocks * np.square(without - mean).sum()))
    return Estimate(value, error, blocks * value - (blocks - 1) * mean)


def _statistics(count: np.ndarray, total: np.ndarray, products: np.ndarray) -> Statistics:
    """Mean and covariance from sums over images."""
    if count < 2:
        raise ValueError(f"{count} images are too few for a covariance")
    mean = total / count
    return Statistics(mean, (products - count * np.outer(mean, mean)) / (count - 1))
