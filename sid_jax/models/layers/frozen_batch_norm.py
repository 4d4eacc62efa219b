"""Batch norm of a network that is never trained: a scale and a shift of each channel."""

import jax
import jax.numpy as jnp
from flax import nnx


class FrozenBatchNorm(nnx.Module):
    """Batch norm with the statistics of its training; its four arrays are named as PyTorch's state dicts name them.

    Args:
      channels: C of the input `[..., C]`.
      eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float) -> None:
        self.weight = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.running_mean = nnx.Param(jnp.zeros(channels))
        self.running_var = nnx.Param(jnp.ones(channels))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C]` -> `[..., C]`."""
        scale, shift = self.scale_and_shift()
        return x * scale + shift

    def scale_and_shift(self) -> tuple[jax.Array, jax.Array]:
        """What each channel is multiplied by, and what is added then: each `[C]`."""
        scale = self.weight / jnp.sqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale
