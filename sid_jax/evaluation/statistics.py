"""What adds up the features of images, batch by batch, and gives a metric at the end; on the first process only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sid_jax.metrics.frechet import Statistics
from sid_jax.metrics.inception_score import SPLITS, inception_score
from sid_jax.metrics.kid import SUBSET_SIZE, kernel_distance
from sid_jax.metrics.moments import BLOCKS, BlockedMoments, Estimate
from sid_jax.metrics.precision_recall import NEIGHBOURS, precision_recall

Features = Mapping[str, np.ndarray]
"""What a network says of some images, `[n, ...]` each: `pool` and `logits` of Inception, `pool` of DINOv2, `score` of a
CLIP score."""
Arrays = dict[str, np.ndarray]


class Statistic(Protocol):
    """Features -> values.

    names: of the values.
    least: images that it needs.
    """

    names: tuple[str, ...]
    least: int

    def add(self, features: Features, rows: np.ndarray) -> None:
        """Adds images, which come in the order of their rows, `[n]`."""
        ...

    def arrays(self) -> Arrays:
        """All that was added, by name, for a file that the measurement goes on from."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Makes it what `arrays` was given by. Raises ValueError where they are of something else."""
        ...

    def values(self) -> dict[str, Estimate]:
        """By its names."""
        ...


def certain(value: float) -> Estimate:
    """An estimate of which it is not known how sure it is."""
    return Estimate(float(value), float("nan"), float("nan"))


class FrechetToReference:
    """The Frechet distance of pooled features to a reference, with the jackknife.

    Args:
      name: of the value.
      reference: statistics of the real images' features.
    """

    least = 2 * BLOCKS

    def __init__(self, name: str, reference: Statistics):
        self.names: tuple[str, ...] = (name,)
        self._reference, self._moments = reference, BlockedMoments(len(reference.mean))

    def add(self, features: Features, rows: np.ndarray) -> None:
        """Into blocks of sums."""
        self._moments.add(features["pool"], rows)

    def arrays(self) -> Arrays:
        """The sums."""
        return self._moments.arrays()

    def restore(self, arrays: Arrays) -> None:
        """From the sums."""
        self._moments = BlockedMoments.from_arrays(arrays)

    def values(self) -> dict[str, Estimate]:
        """One."""
        return {self.names[0]: self._moments.frechet(self._reference)}


class MeanScore:
    """The mean of a score of each image, with its standard error.

    Args:
      name: of the value.
    """

    least = 2

    def __init__(self, name: str):
        self.names: tuple[str, ...] = (name,)
        self._sums = np.zeros(3)  # images, scores, squares

    def add(self, features: Features, rows: np.ndarray) -> None:
        """Into float64 sums."""
        scores = features["score"].astype(np.float64)
        self._sums += len(rows), scores.sum(), np.square(scores).sum()

    def arrays(self) -> Arrays:
        """The sums."""
        return {"sums": self._sums}

    def restore(self, arrays: Arrays) -> None:
        """From the sums."""
        if list(arrays) != ["sums"] or arrays["sums"].shape != (3,) or arrays["sums"].dtype != np.float64:
            raise ValueError("not the sums of scores")
        self._sums = arrays["sums"]

    def values(self) -> dict[str, Estimate]:
        """One: a mean has no bias."""
        count, total, squares = self._sums
        mean = total / count
        variance = max(squares / count - mean**2, 0.0) * count / (count - 1)
        return {self.names[0]: Estimate(float(mean), float(np.sqrt(variance / count)), float(mean))}


class Kept:
    """Features of all images, some of the names, and what is computed of them in the end.

    Args:
      names: of the values.
      features: the names of the features that are kept.
      least: images that it needs.
      compute: those features, each `[N, ...]`, in that order -> the values by name.
    """

    def __init__(
        self,
        names: Sequence[str],
        features: Sequence[str],
        least: int,
        compute: Callable[..., Mapping[str, Estimate]],
    ):
        self.names, self.least = tuple(names), least
        self._kept: dict[str, list[np.ndarray]] = {name: [] for name in features}
        self._compute = compute

    def add(self, features: Features, rows: np.ndarray) -> None:
        """Beside those that there are."""
        for name, kept in self._kept.items():
            kept.append(features[name])

    def arrays(self) -> Arrays:
        """The features."""
        for name, kept in self._kept.items():
            self._kept[name] = [np.concatenate(kept)] if kept else []
        return {name: kept[0] for name, kept in self._kept.items() if kept}

    def restore(self, arrays: Arrays) -> None:
        """From the features."""
        if set(arrays) - set(self._kept):
            raise ValueError("not the features of images")
        self._kept = {name: [arrays[name]] if name in arrays else [] for name in self._kept}

    def values(self) -> dict[str, Estimate]:
        """Computed now."""
        arrays = self.arrays()
        return dict(self._compute(*(arrays[name] for name in self._kept)))


def inception_score_of(names: Sequence[str]) -> Kept:
    """The Inception score, of logits without bias: the mean and the spread of its ten splits."""

    def compute(logits: np.ndarray) -> dict[str, Estimate]:
        return dict(zip(names, map(certain, inception_score(logits)), strict=True))

    return Kept(names, ("logits",), SPLITS, compute)


def precision_recall_to(real: np.ndarray, names: Sequence[str]) -> Kept:
    """Precision and recall of pooled features beside those of real images, `[K, D]`."""

    def compute(pool: np.ndarray) -> dict[str, Estimate]:
        return dict(zip(names, map(certain, precision_recall(real, pool)), strict=True))

    return Kept(names, ("pool",), NEIGHBOURS + 1, compute)


def kernel_distance_to(real: np.ndarray, names: Sequence[str]) -> Kept:
    """The kernel distance of pooled features from those of real images, `[K, D]`: mean and spread of its subsets."""

    def compute(pool: np.ndarray) -> dict[str, Estimate]:
        return dict(zip(names, map(certain, kernel_distance(pool, real)), strict=True))

    return Kept(names, ("pool",), SUBSET_SIZE, compute)


def arrays_of(statistics: Sequence[Any]) -> Arrays:
    """What all of them have, in one dict."""
    return {f"{i}/{name}": array for i, each in enumerate(statistics) for name, array in each.arrays().items()}


def restore_all(statistics: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> None:
    """From what `arrays_of` gave. Raises ValueError where that is of others."""
    for i, each in enumerate(statistics):
        own = f"{i}/"
        each.restore({name.removeprefix(own): array for name, array in arrays.items() if name.startswith(own)})
