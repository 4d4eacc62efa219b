"""Scaled dot-product attention, and the choice between its implementations."""

from sid_jax.models.layers.attention.dispatch import attend, choose

__all__ = ["attend", "choose"]
