"""Scaled dot-product attention, and the choice between its implementations."""

from sid_jax.models.layers.attention.dispatch import attend, choose
from sid_jax.models.layers.attention.kernels import AttentionError

__all__ = ["AttentionError", "attend", "choose"]
