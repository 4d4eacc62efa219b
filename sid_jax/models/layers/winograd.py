"""3x3 convolutions on CPUs, by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, arXiv 1509.09308).

An output of 2x2 pixels takes 16 products for each pair of channels where the definition takes 36. All products are in
matrices, which XLA hands to the CPU's library; of a convolution it does so in the forward pass only, and computes the
gradient of the kernel several times slower. The transforms have the weights 1 and 1/2, so what is lost to rounding is
about what another order of the sum would lose.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.models.layers import shifted

FEWEST_CHANNELS = 64
"""Of input and output: with fewer, the transforms of the images cost more than the products that they save."""
FEWEST_PIXELS = 1024
"""Of all images together: with fewer, so does the transform of the kernel."""
SMALLEST_SIDE = 8
"""In pixels: of smaller images, most tiles are at the border."""
FEWEST_PRODUCTS = 2**23
"""For an entry of the kernel's nine, of all pixels and pairs of channels: with fewer, XLA's own gradient will do."""

_OF_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)

Grid = list[list[jax.Array]]


def convolution(
    x: jax.Array, kernel: jax.Array, window_strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """In place of `jax.lax.conv_general_dilated` in a layer with a 3x3 kernel and padding 1.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[3, 3, C, D]`.
      window_strides: the same along both sides.
      padding: as the layer gives it.
      **options: as the layer gives them.

    Returns:
      `[B, H, W, D]`, or fewer pixels by the strides. Where there are strides, an axis is odd or small, or there are few
      channels or pixels, it is the convolution of `shifted`; where there is little to compute, or a type is not
      float32, XLA's.
    """
    pixels, stride = math.prod(x.shape[:3]), max(window_strides)
    if x.dtype == kernel.dtype == jnp.float32:
        even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
        large = min(x.shape[1:3]) >= SMALLEST_SIDE and pixels >= FEWEST_PIXELS
        if even and large and stride == 1 and min(kernel.shape[2:]) >= FEWEST_CHANNELS:
            return conv3x3(x, kernel)
        if pixels // stride**2 * math.prod(kernel.shape[2:]) >= FEWEST_PRODUCTS:
            return shifted.conv3x3(x, kernel, stride)
    return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[B, H, W, C]` and `[3, 3, C, D]` -> `[B, H, W, D]`, with zeros beyond the border; H and W are even."""
    return _products(_tiles(x), _transformed(kernel), x.shape)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], of_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    of_x = conv3x3(of_out, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    spread = _spread(of_out)
    tiles = _tiles(x)
    of_grid = jnp.stack([jnp.stack([tiles[a][b].T @ spread[a][b] for b in range(4)]) for a in range(4)])
    return of_x, jnp.einsum("ai,bj,abcd->ijcd", _OF_KERNEL, _OF_KERNEL, of_grid)


conv3x3.defvjp(_forward, _backward)


def _transformed(kernel: jax.Array) -> jax.Array:
    return jnp.einsum("ai,bj,ijcd->abcd", _OF_KERNEL, _OF_KERNEL, kernel)


def _tiles(x: jax.Array) -> Grid:
    """The 4x4 numbers of each tile's input, transformed: each `[B H/2 W/2, C]`."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def along(x: jax.Array, axis: int, count: int) -> list[jax.Array]:
        a, b, c, d = (jax.lax.slice_in_dim(x, i, i + 2 * count - 1, stride=2, axis=axis) for i in range(4))
        return [a - c, b + c, c - b, b - d]

    rows = along(padded, 1, x.shape[1] // 2)
    return _grid(lambda row: along(row, 2, x.shape[2] // 2), rows)


def _spread(out: jax.Array) -> Grid:
    """The transpose of what makes outputs of products: from 2x2 pixels of each tile to 4x4 numbers."""

    def along(x: jax.Array, axis: int) -> list[jax.Array]:
        even, odd = (jax.lax.slice_in_dim(x, i, x.shape[axis], stride=2, axis=axis) for i in range(2))
        return [even, even + odd, even - odd, -odd]

    return _grid(lambda row: along(row, 2), along(out, 1))


def _grid(along: Callable[[jax.Array], list[jax.Array]], rows: list[jax.Array]) -> Grid:
    return [[each.reshape(-1, each.shape[-1]) for each in along(row)] for row in rows]


def _products(tiles: Grid, kernel: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The output `[B, H, W, D]`, for an input of a shape."""
    batch, height, width, _ = shape

    def along(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [a + b + c, b - c - d]

    rows = [along(*(tiles[a][b] @ kernel[a, b] for b in range(4))) for a in range(4)]
    pixels = [along(*(rows[a][j] for a in range(4))) for j in range(2)]  # of a column, then of a row
    parts = [[pixels[j][i].reshape(batch, height // 2, width // 2, -1) for j in range(2)] for i in range(2)]
    return jnp.stack([jnp.stack(row, axis=3) for row in parts], axis=2).reshape(batch, height, width, -1)
