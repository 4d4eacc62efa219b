"""Embeddings of the diffusion time, and of the numbers that SDXL is conditioned on."""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.layers.options import LayerOptions


def sinusoidal(t: jax.Array, dim: int, *, flip_sin_to_cos: bool, freq_shift: float) -> jax.Array:
    """Sines and cosines of `t` at `dim / 2` frequencies from 1 down to 1/10,000 (Vaswani et al. 2017, section 3.5).

    Args:
      t: `[N]`, any real numbers.
      dim: even number of outputs.
      flip_sin_to_cos: cosines first.
      freq_shift: diffusers' shift of the frequencies' exponent.

    Returns:
      `[N, dim]` in float32.
    """
    half = dim // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / (half - freq_shift))
    angles = t.astype(jnp.float32)[:, None] * frequencies
    parts = [jnp.cos(angles), jnp.sin(angles)] if flip_sin_to_cos else [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate(parts, axis=-1)


class TimestepEmbedding(nnx.Module):
    """Two linear layers on a sinusoidal embedding.

    Args:
      in_channels: width of the sinusoidal embedding.
      time_embed_dim: width of the result.
      **layer: see `LayerOptions`.
    """

    def __init__(self, in_channels: int, time_embed_dim: int, **layer: Unpack[LayerOptions]) -> None:
        self.linear_1 = nnx.Linear(in_channels, time_embed_dim, **layer)
        self.linear_2 = nnx.Linear(time_embed_dim, time_embed_dim, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, in_channels]` -> `[B, time_embed_dim]`."""
        return self.linear_2(nnx.silu(self.linear_1(x)))
