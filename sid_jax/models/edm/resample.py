"""Halving and doubling the resolution by a small separable filter, with zeros beyond the border."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.models.layers.constant import Constant, known_constant

Filter = tuple[int, ...]
BOX: Filter = (1, 1)
"""Halves by the mean of 2 x 2 pixels, and doubles by the nearest neighbour."""


def filter_constant(taps: Filter) -> Constant:
    """The buffer `resample_filter` `[1, 1, n, n]` that files have of a filter."""
    outer = np.outer(taps, taps) / np.sum(taps) ** 2
    return known_constant(outer[None, None])


def down(x: jax.Array, taps: Filter) -> jax.Array:
    """`[B, H, W, C]` -> `[B, H / 2, W / 2, C]`."""
    padding = (len(taps) - 1) // 2
    return halved(jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))), taps)


def halved(x: jax.Array, taps: Filter) -> jax.Array:
    """`[B, H, W, C]` -> `[B, (H - n) / 2 + 1, (W - n) / 2 + 1, C]` for n taps: `down` without padding."""
    if taps == BOX:
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    for axis in (1, 2):
        count = (x.shape[axis] - len(taps)) // 2 + 1
        parts = (
            (tap / sum(taps)) * jax.lax.slice_in_dim(x, i, i + 2 * count - 1, stride=2, axis=axis)
            for i, tap in enumerate(taps)
        )
        x = sum(parts, start=jnp.zeros((), x.dtype))
    return x


def up(x: jax.Array, taps: Filter) -> jax.Array:
    """`[B, H, W, C]` -> `[B, 2 H, 2 W, C]`."""
    for axis in (1, 2):
        if taps == BOX:
            even = odd = x
        else:
            # Pixel 2i of the result sees pixels i - 1 and i, and pixel 2i + 1 sees pixels i and i + 1.
            near, far = 2 * taps[1] / sum(taps), 2 * taps[0] / sum(taps)
            length = x.shape[axis]
            padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
            even = near * x + far * jax.lax.slice_in_dim(padded, 0, length, axis=axis)
            odd = near * x + far * jax.lax.slice_in_dim(padded, 2, length + 2, axis=axis)
        shape = [2 * size if i == axis else size for i, size in enumerate(x.shape)]
        x = jnp.stack([even, odd], axis=axis + 1).reshape(shape)
    return x


class Resample(nnx.Module):
    """A change of resolution that has no weights; its one entry in a file is the filter.

    Args:
      change: "up" or "down".
      taps: of the filter.
    """

    def __init__(self, change: str, taps: Filter) -> None:
        self.change, self.taps = change, taps
        self.resample_filter = filter_constant(taps)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, 2 H, 2 W, C]` or `[B, H / 2, W / 2, C]`."""
        return up(x, self.taps) if self.change == "up" else down(x, self.taps)
