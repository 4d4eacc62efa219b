"""3x3 convolutions on CPUs, by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, arXiv 1509.09308).

An output of 2x2 pixels takes 16 products for each pair of channels where the definition takes 36. All products are in
matrices, which XLA hands to the CPU's library; of a convolution it does so in the forward pass only, and computes the
gradient of the kernel several times slower. The transforms have the weights 1 and 1/2, so what is lost to rounding is
about what another order of the sum would lose.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sid_jax.models.layers import shifted
from sid_jax.models.layers.execution import computed_once

FEWEST_CHANNELS = 64
"""Of input and output: with fewer, the transforms of the images cost more than the products that they save."""
FEWEST_PIXELS = 256
"""Of all images together: with fewer, so does the transform of the kernel. The larger the kernel is, the worse it fits
the caches: there are to be as many pixels as channels, of input or output."""
SMALLEST_SIDE = 8
"""In pixels: of smaller images, most tiles are at the border."""
FEWEST_PRODUCTS = 2**23
"""For an entry of the kernel's nine, of all pixels and pairs of channels: with fewer, XLA's own gradient will do."""

_OF_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_OF_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_TO_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
_FLIPPED = (3, 1, 2, 0)
"""Where the rows, and columns, of a flipped kernel's transform are in that of the kernel."""

Matrix = Sequence[Sequence[float]]
Grid = Sequence[Sequence[jax.Array]]


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
        channels = min(kernel.shape[2:])
        large = min(x.shape[1:3]) >= SMALLEST_SIDE and pixels >= max(FEWEST_PIXELS, channels)
        if even and large and stride == 1 and channels >= FEWEST_CHANNELS:
            return conv3x3(x, kernel)
        if pixels // stride**2 * math.prod(kernel.shape[2:]) >= FEWEST_PRODUCTS:
            return shifted.conv3x3(x, kernel, stride)
    return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[B, H, W, C]` and `[3, 3, C, D]` -> `[B, H, W, D]`, with zeros beyond the border; H and W are even."""
    return _output(_tiles(x), _transformed(_OF_KERNEL, kernel), x.shape)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], of_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    of_out = computed_once(of_out)
    # The input's gradient is a convolution with the kernel flipped and transposed: products can read it as it lies.
    transformed = _transformed(_OF_KERNEL, kernel)
    flipped = [[transformed[a][b].T for b in _FLIPPED] for a in _FLIPPED]
    of_x = _output(_tiles(of_out), flipped, x.shape)
    # That of the kernel is the transpose of all that the kernel goes through.
    spread = _flat(_transformed(_transposed(_TO_OUTPUT), _pixels(of_out, 2)))
    of_transformed = [[a.T @ b for a, b in zip(*rows, strict=True)] for rows in zip(_tiles(x), spread, strict=True)]
    of_kernel = _transformed(_transposed(_OF_KERNEL), of_transformed)
    return of_x, jnp.stack([jnp.stack(row) for row in of_kernel])


conv3x3.defvjp(_forward, _backward)


def _tiles(x: jax.Array) -> Grid:
    """The 4x4 numbers of each tile's input, transformed: each `[B H/2 W/2, C]`."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _flat(_transformed(_OF_INPUT, _pixels(padded, 4)))


def _output(tiles: Grid, kernel: Grid, shape: tuple[int, ...]) -> jax.Array:
    """The output `[B, H, W, D]`, for an input of a shape, whose tiles and kernel are transformed."""
    batch, height, width, _ = shape
    products = [[a @ b for a, b in zip(*rows, strict=True)] for rows in zip(tiles, kernel, strict=True)]
    size = batch, height // 2, width // 2, -1
    rows = [jnp.stack([x.reshape(size) for x in row], axis=3) for row in _transformed(_TO_OUTPUT, products)]
    return jnp.stack(rows, axis=2).reshape(batch, height, width, -1)


def _pixels(x: jax.Array, size: int) -> Grid:
    """The pixels of squares that begin at every second one, by their places in the squares: each `[B, h, w, C]`."""
    batch, height, width, channels = x.shape
    ends = (batch, height - size + 1, width - size + 1, channels)

    def at(i: int, j: int) -> jax.Array:
        return jax.lax.slice(x, (0, i, j, 0), (batch, i + ends[1], j + ends[2], channels), (1, 2, 2, 1))

    return [[at(i, j) for j in range(size)] for i in range(size)]


def _flat(grid: Grid) -> Grid:
    return [[x.reshape(-1, x.shape[-1]) for x in row] for row in grid]


def _transposed(matrix: Matrix) -> Matrix:
    return list(zip(*matrix, strict=True))


def _transformed(matrix: Matrix, grid: Grid | jax.Array) -> Grid:
    """matrix grid matrix^T, where the grid's entries are arrays."""
    rows = [_combined(matrix, row) for row in grid]
    columns = [_combined(matrix, column) for column in zip(*rows, strict=True)]
    return list(zip(*columns, strict=True))


def _combined(matrix: Matrix, parts: Sequence[jax.Array] | jax.Array) -> list[jax.Array]:
    """The matrix times a vector of arrays."""

    def entry(weights: Sequence[float]) -> jax.Array:
        terms = (part if weight == 1 else weight * part for weight, part in zip(weights, parts, strict=True) if weight)
        return functools.reduce(operator.add, terms)

    return [entry(weights) for weights in matrix]
