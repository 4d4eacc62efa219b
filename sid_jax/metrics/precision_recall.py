"""Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991): quality and diversity, apart."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NEIGHBOURS = 3  # k of the paper
_ROWS, _COLUMNS = 1024, 8192  # of distances at a time: 32 MB on the device
_SMALLEST = 64  # rows or columns that a program is compiled for; other sizes are powers of two, so that there are few
_SPARE = 4  # neighbours beyond the k-th whose distances are computed again
_ERROR = 1e-5  # of |a|^2 + |b|^2: more than a squared distance in float32 is wrong by, at any width of features
_AGAIN = 2**24  # numbers at a time, where distances are computed again


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

    The device computes distances in float32, some rows and columns at a time. Radii, and whether a point is in a ball
    where that is too close to tell, are computed again in float64 on the host: so the values are those of float64.

    Args:
      real: features `[N, D]`, N greater than k.
      generated: features `[M, D]`, M greater than k.
      k: which neighbour.

    Raises:
      ValueError: there are too few samples.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"{min(len(real), len(generated))} samples are too few: more than {k} are needed")
    # Distances are the same from any origin, and float32 has them best from one in the middle.
    origin = np.asarray(np.mean(real, axis=0, dtype=np.float64))
    reals, fakes = _Points(real, origin), _Points(generated, origin)
    return PrecisionRecall(_share_within(fakes, reals, k), _share_within(reals, fakes, k))


class _Points:
    """Features on the host as they are, and from another origin on the device: float32 `[tiles, columns, D]`."""

    def __init__(self, features: np.ndarray, origin: np.ndarray) -> None:
        self.features, self._origin = features, origin
        self.columns = jnp.asarray(self._tiles(_COLUMNS, 0, len(features)))

    def __len__(self) -> int:
        return len(self.features)

    def starts(self) -> range:
        """Where tiles of rows begin."""
        return range(0, len(self), min(_ROWS, _power_of_two(len(self))))

    def rows(self, start: int) -> np.ndarray:
        """A tile of rows, filled up at the end."""
        return self._tiles(_ROWS, start, min(start + _ROWS, len(self)))[0]

    def _tiles(self, most: int, first: int, last: int) -> np.ndarray:
        size = min(most, _power_of_two(len(self)))
        filled = np.zeros((-(-(last - first) // size), size, self.features.shape[1]), np.float32)
        flat = filled.reshape(-1, filled.shape[-1])
        np.subtract(self.features[first:last], self._origin, out=flat[: last - first], casting="same_kind")
        return filled


def _power_of_two(count: int) -> int:
    return max(_SMALLEST, 1 << (count - 1).bit_length())


def _share_within(points: _Points, manifold: _Points, k: int) -> float:
    radii = _squared_radii(manifold, k)
    balls = np.zeros(manifold.columns.shape[:2], np.float32)
    balls.reshape(-1)[: len(radii)] = radii
    placed, inside = jnp.asarray(balls), 0
    for start in points.starts():
        surely, perhaps = _within(points.rows(start), manifold.columns, placed, len(manifold))
        surely, perhaps = (np.asarray(each)[: len(points) - start] for each in (surely, perhaps))
        inside += int(surely.sum())
        for row in start + np.flatnonzero(perhaps & ~surely):
            inside += _is_within(points.features[row], manifold.features, radii)
    return inside / len(points)


def _squared_radii(points: _Points, k: int) -> np.ndarray:
    """The squared radius of each point's ball, float64 `[N]`."""
    # A point's nearest neighbour in its own set is the point itself. So the k-th other one is at place k, not at k - 1.
    count = min(k + 1 + _SPARE, len(points))
    radii = []
    for start in points.starts():
        nearest = np.asarray(_nearest(points.rows(start), points.columns, len(points), count))[: len(points) - start]
        step = max(1, _AGAIN // (count * points.features.shape[1]))
        for first in range(0, len(nearest), step):
            some = nearest[first : first + step]
            own = points.features[start + first : start + first + len(some)]
            radii.append(np.partition(_exactly(own[:, None], points.features[some]), k, axis=1)[:, k])
    return np.concatenate(radii)


def _is_within(point: np.ndarray, manifold: np.ndarray, radii: np.ndarray) -> bool:
    step = max(1, _AGAIN // manifold.shape[1])
    starts = range(0, len(manifold), step)
    return any(np.any(_exactly(point, manifold[i : i + step]) <= radii[i : i + step]) for i in starts)


def _exactly(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances along the last axis, in float64. They are 0 for equal points, and the same both ways."""
    distances: np.ndarray = np.square(np.asarray(a, np.float64) - b).sum(-1)
    return distances


@functools.partial(jax.jit, static_argnums=3)
def _nearest(rows: jax.Array, columns: jax.Array, points: int, count: int) -> jax.Array:
    """Indices of the nearest `count` of the points to each row, `[rows, count]`."""

    def merge(found: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        columns, first = tile
        indices = first + jnp.arange(len(columns))
        distances = jnp.where(indices < points, _squared_distances(rows, columns)[0], jnp.inf)
        distances = jnp.concatenate([found[0], distances], axis=1)
        nearest, places = jax.lax.top_k(-distances, count)
        indices = jnp.concatenate([found[1], jnp.broadcast_to(indices, (len(rows), len(columns)))], axis=1)
        return (-nearest, jnp.take_along_axis(indices, places, axis=1)), None

    start = jnp.full((len(rows), count), jnp.inf, jnp.float32), jnp.zeros((len(rows), count), jnp.int32)
    return jax.lax.scan(merge, start, (columns, _first_of(columns)))[0][1]


@jax.jit
def _within(rows: jax.Array, columns: jax.Array, radii: jax.Array, points: int) -> tuple[jax.Array, jax.Array]:
    """Whether each row is surely, and whether it may be, in the ball of one of the points: bool `[rows]` each."""

    def merge(found: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, ...]) -> tuple[Any, None]:
        columns, radii, first = tile
        distances, error = _squared_distances(rows, columns)
        depth = jnp.where(first + jnp.arange(len(columns)) < points, radii - distances, -jnp.inf)
        surely, perhaps = (depth > error).any(1), (depth >= -error).any(1)
        return (found[0] | surely, found[1] | perhaps), None

    nowhere = jnp.zeros(len(rows), bool)
    return jax.lax.scan(merge, (nowhere, nowhere), (columns, radii, _first_of(columns)))[0]


def _first_of(tiles: jax.Array) -> jax.Array:
    """The number of the first point of each tile."""
    return jnp.arange(len(tiles)) * tiles.shape[1]


def _squared_distances(rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared distances `[rows, columns]`, and how wrong each may be."""
    squares = jnp.square(rows).sum(1)[:, None] + jnp.square(columns).sum(1)
    return squares - 2 * jnp.matmul(rows, columns.T, precision="highest"), _ERROR * squares
