"""EDM's augmentation (Karras et al. 2022, arXiv 2206.00364, appendix F.2): nine numbers say how an image was changed.

Flips are exact. Scale, rotation, anisotropic scale and translation are one affine map, which is applied at twice the
resolution: images are continued by reflection, interpolated by the wavelet filter sym6, read bilinearly where the map
says, and decimated by sym6. Both filters are constant matrices, one a side, so that all of it is matrix products and a
gather.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LABELS = 9
"""Numbers that a network is told of an image's augmentation."""

# Of PyWavelets' sym6, the low-pass filter.
_SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
_MARGIN = 3  # pixels around the image that its filters reach into
_SCALE, _TRANSLATION = 0.2, 0.125  # standard deviations: of log2 of a scale, and in sides of the image


class Transforms(NamedTuple):
    """How each image of a batch is changed; what is 0 leaves an image as it is. Float32 `[B]`, but for `translation`.

    Attributes:
      x_flip, y_flip: 1 where the image is mirrored, left to right or top to bottom.
      scale: w; the image is 2^(0.2 w) times as large.
      rotation: in radians.
      anisotropy, direction: w and r; along the direction r the image is 2^(0.2 w) times as long, and as much shorter
        across it.
      translation: `[B, 2]`, in eighths of width and height.
    """

    x_flip: jax.Array
    y_flip: jax.Array
    scale: jax.Array
    rotation: jax.Array
    anisotropy: jax.Array
    direction: jax.Array
    translation: jax.Array

    @property
    def labels(self) -> jax.Array:
        """The nine numbers, `[B, 9]`."""
        return jnp.stack(
            [
                self.x_flip, self.y_flip, self.scale, jnp.cos(self.rotation) - 1, jnp.sin(self.rotation),
                self.anisotropy * jnp.cos(self.direction), self.anisotropy * jnp.sin(self.direction),
                self.translation[:, 0], self.translation[:, 1],
            ],
            axis=1,
        )  # fmt: skip


def augment(key: jax.Array, images: jax.Array, probability: float) -> tuple[jax.Array, jax.Array]:
    """Augmented images `[B, H, W, C]`, float32, and their labels `[B, 9]`.

    Args:
      key: of all draws.
      images: `[B, H, W, C]`.
      probability: of each transform but the mirroring from left to right, which always has that of a coin.
    """
    transforms = draw(key, len(images), probability)
    return transform(images, transforms), transforms.labels


def draw(key: jax.Array, batch: int, probability: float) -> Transforms:
    """The transforms of a batch. Each is active or not by itself; a mirroring that is active is done by a coin."""
    keys = iter(jax.random.split(key, 13))

    def active(of: float = probability) -> jax.Array:
        return jax.random.bernoulli(next(keys), jnp.float32(of), (batch,)).astype(jnp.float32)

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), (batch, *shape), jnp.float32)

    def angle() -> jax.Array:
        return jax.random.uniform(next(keys), (batch,), jnp.float32, -np.pi, np.pi)

    return Transforms(
        x_flip=active(0.5),
        y_flip=active(0.5) * active(),
        scale=normal() * active(),
        rotation=angle() * active(),
        anisotropy=normal() * active(),
        direction=angle() * active(0.5),
        translation=normal(2) * active()[:, None],
    )


def transform(images: jax.Array, transforms: Transforms) -> jax.Array:
    """The images changed as the transforms say. Pixels are kept exactly where none but a flip is active."""
    images = images.astype(jnp.float32)
    for flips, axis in ((transforms.x_flip, 2), (transforms.y_flip, 1)):
        images = jnp.where(flips[:, None, None, None] > 0, jnp.flip(images, axis), images)
    _, height, width, _ = images.shape
    warped = jnp.stack([transforms.scale, transforms.rotation, transforms.anisotropy, *transforms.translation.T]) != 0
    return jnp.where(warped.any(axis=0)[:, None, None, None], _warp(images, _matrix(transforms, height, width)), images)


def _matrix(transforms: Transforms, height: int, width: int) -> jax.Array:
    """From a pixel of the result to that of the image, both from the centre: `[B, 3, 3]`."""
    scale = _stretch(-transforms.scale, -transforms.scale)
    rotation = _rotate(transforms.rotation)
    along = _stretch(-transforms.anisotropy, transforms.anisotropy)
    turned = (_rotate(-transforms.direction), along, _rotate(transforms.direction))
    x, y = transforms.translation.T
    translation = _affine(1, 0, -_TRANSLATION * width * x, 0, 1, -_TRANSLATION * height * y)
    return functools.reduce(_product, (scale, rotation, *turned, translation))


def _stretch(x: jax.Array, y: jax.Array) -> jax.Array:
    return _affine(2 ** (_SCALE * x), 0, 0, 0, 2 ** (_SCALE * y), 0)


def _rotate(angle: jax.Array) -> jax.Array:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _affine(cos, -sin, 0, sin, cos, 0)


def _affine(*entries: jax.Array | float) -> jax.Array:
    """The first two rows, entry by entry, of matrices `[B, 3, 3]`."""
    rows = jnp.broadcast_arrays(*(jnp.asarray(entry, jnp.float32) for entry in (*entries, 0, 0, 1)))
    return jnp.stack(rows, axis=-1).reshape(-1, 3, 3)


def _product(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.matmul(one, other, precision=jax.lax.Precision.HIGHEST)


def _warp(images: jax.Array, matrix: jax.Array) -> jax.Array:
    """The images read through the map, at twice the resolution and back."""
    _, height, width, _ = images.shape
    doubled = _separable(images, *(_enlarging(side) for side in (height, width)))
    grid_y, grid_x = (jnp.arange(side, dtype=jnp.float32) + 1 - side / 2 for side in map(_grid, (height, width)))
    grid_x, grid_y = jnp.meshgrid(grid_x, grid_y)
    m = matrix[:, :2, :, None, None]
    x, y = (
        m[:, axis, 0] * grid_x + m[:, axis, 1] * grid_y + (2 * m[:, axis, 2] - 1 + size / 2)
        for axis, size in ((0, doubled.shape[2]), (1, doubled.shape[1]))
    )
    return _separable(_bilinear(doubled, x, y), *(_reducing(side) for side in (height, width)))


def _bilinear(images: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Images `[B, h, w, C]` at real positions `[B, ...]`, in pixels from the first; zero outside: `[B, ..., C]`."""
    batch, height, width, channels = images.shape
    # Beyond the border by one it is zero already, and no number of pixels overflows an int there.
    x, y = (jnp.clip(at, -1, size) for at, size in ((x, width), (y, height)))
    left, top = jnp.floor(x), jnp.floor(y)
    flat = images.reshape(batch, height * width, channels)
    total: jax.Array | float = 0.0
    for row, y_share in ((top, top + 1 - y), (top + 1, y - top)):
        for column, x_share in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = jnp.where(inside, row * width + column, 0).astype(jnp.int32)
            pixels = jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(flat, index)
            total += jnp.where(inside, y_share * x_share, 0)[..., None] * pixels
    return jnp.asarray(total)


def _separable(images: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """A filter along each axis: matrices `[out, in]` of the heights and of the widths."""
    images = jnp.einsum("ij,bjwc->biwc", rows, images, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("ij,bhjc->bhic", columns, images, precision=jax.lax.Precision.HIGHEST)


def _grid(side: int) -> int:
    """Samples at twice the resolution that the map is evaluated at."""
    return 2 * (side + 2 * _MARGIN)


@functools.cache
def _enlarging(side: int) -> np.ndarray:
    """A side continued by reflection, by all pixels but one, interpolated to twice as many: `[6 side - 4, side]`."""
    reflected = np.pad(np.eye(side), ((side - 1, side - 1), (0, 0)), mode="reflect")
    spread = np.zeros((2 * len(reflected) - 1, side))
    spread[::2] = reflected
    return _correlate(spread, _SYM6[::-1], 6).astype(np.float32)


@functools.cache
def _reducing(side: int) -> np.ndarray:
    """Every other sample of the filtered grid, without its margin: `[side, 2 (side + 6)]`."""
    return _correlate(np.eye(_grid(side)), _SYM6, 5)[::2][_MARGIN:-_MARGIN].astype(np.float32)


def _correlate(columns: np.ndarray, taps: tuple[float, ...], padding: int) -> np.ndarray:
    """Each column correlated with the taps, zeros beyond its ends."""
    padded = np.pad(columns, ((padding, padding), (0, 0)))
    length = len(padded) - len(taps) + 1
    return sum((tap * padded[i : i + length] for i, tap in enumerate(taps)), np.zeros(()))
