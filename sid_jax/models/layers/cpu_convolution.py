"""Convolutions and pools of a forward pass in the forms that are fastest on CPUs; each computes what XLA's own does."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.models.layers.product import pointwise

_FEWEST_PIXELS = 1024
"""Of all images together: with fewer, a kernel has as many numbers as the images."""

Padding = Sequence[tuple[int, int]]


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, *options: Any, **more: Any
) -> jax.Array:
    """In place of `jax.lax.conv_general_dilated` in a layer.

    Products of matrices are faster than XLA's convolutions. 1x1 kernels are such products. Those along one axis, and
    those of few pixels, become such with the pixels of each output side by side.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, D]`.
      strides: along rows and columns.
      padding: at both ends of rows and columns.
      *options: as the layer gives them.
      **more: as the layer gives them.

    Returns:
      `[B, H', W', D]`.
    """
    size, steady = kernel.shape[:2], tuple(strides) == (1, 1)
    if size == (1, 1) and steady:
        return pointwise(x, kernel)
    if steady and (1 in size or math.prod(x.shape[:3]) < _FEWEST_PIXELS):
        return _side_by_side(x, kernel, padding)
    if steady and size == (3, 3) and max(map(max, padding)) < 2:
        # Without the padding XLA takes up to three times as long.
        (top, bottom), (left, right) = padding
        out = jax.lax.conv_general_dilated(x, kernel, strides, [(1, 1), (1, 1)], *options, **more)
        height, width = x.shape[1:3]
        return out[:, 1 - top : height - 1 + bottom, 1 - left : width - 1 + right]
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, *options, **more)


def max_pool(x: jax.Array, strides: int, padding: int) -> jax.Array:
    """The maximum of 3x3 pixels, of which those beyond the border are none.

    Args:
      x: `[B, H, W, C]`.
      strides: along both axes.
      padding: at all four sides.
    """
    return _along_both(x, jnp.maximum, strides, padding, -jnp.inf)


def average_pool(x: jax.Array) -> jax.Array:
    """The average of the 3x3 pixels around each one, `[B, H, W, C]`, as far as they are within the image."""
    rows, columns = (np.convolve(np.ones(length), np.ones(3))[1:-1] for length in x.shape[1:3])
    inside = np.outer(rows, columns)[:, :, None].astype(np.float32)
    return _along_both(x, jnp.add, 1, 1, 0) / inside


def _along_both(
    x: jax.Array, join: Callable[[jax.Array, jax.Array], jax.Array], strides: int, padding: int, beyond: float
) -> jax.Array:
    """Three neighbours joined along the columns, then along the rows."""
    for axis in (1, 2):
        ends = [(padding, padding) if each == axis else (0, 0) for each in range(4)]
        x = jnp.pad(x, ends, constant_values=beyond)
        span = (x.shape[axis] - 3) // strides * strides + 1
        shifted = [jax.lax.slice_in_dim(x, i, i + span, strides, axis) for i in range(3)]
        x = functools.reduce(join, shifted)
    return x


def _side_by_side(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """By one product, of which each row has all pixels that an output is of."""
    rows, columns, _, channels = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    pixels = [x[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    return pointwise(jnp.concatenate(pixels, -1), kernel.reshape(1, 1, -1, channels))
