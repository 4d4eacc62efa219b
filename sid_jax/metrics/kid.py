"""Kernel inception distance (Binkowski et al. 2018, arXiv 1801.01401): without bias at any number of images."""

from typing import NamedTuple

import numpy as np

SUBSETS, SUBSET_SIZE = 100, 1000
_SEED = 2020  # torch-fidelity's, so that the subsets are the same


class KernelDistance(NamedTuple):
    """A distance, about 0 for two sets of one law; it may be a little below.

    Attributes:
      mean: of the subsets.
      std: of the subsets, as that of a population.
    """

    mean: float
    std: float


def kernel_distance(
    generated: np.ndarray, real: np.ndarray, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE
) -> KernelDistance:
    """The unbiased squared maximum mean discrepancy with the kernel (x y / D + 1)^3, over random subsets.

    The subsets are those of torch-fidelity with its default settings.

    Args:
      generated: features `[N, D]`.
      real: features `[M, D]`.
      subsets: how many.
      subset_size: images of each set in one of them.

    Raises:
      ValueError: a set has fewer images than a subset.
    """
    if min(len(generated), len(real)) < subset_size:
        raise ValueError(f"{min(len(generated), len(real))} images are too few for subsets of {subset_size}")
    draw = np.random.RandomState(_SEED)
    values = []
    for _ in range(subsets):
        x, y = (
            each[draw.choice(len(each), subset_size, replace=False)].astype(np.float64) for each in (generated, real)
        )
        values.append(_of_others(x) + _of_others(y) - 2 * _kernel(x, y).mean())
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _of_others(x: np.ndarray) -> float:
    """The mean of the kernel over pairs of two different images of a set."""
    kernel = _kernel(x, x)
    return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))
