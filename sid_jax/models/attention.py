"""Scaled dot-product attention."""

import jax
import jax.numpy as jnp


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False, upcast: bool = False
) -> jax.Array:
    """softmax(query key^T / sqrt(D)) value, for each head.

    Args:
      query: `[B, Lq, heads, D]`.
      key: `[B, Lk, heads, D]`.
      value: `[B, Lk, heads, D]`.
      causal: position i sees the positions up to i only.
      upcast: multiply query and key in float32 whatever their type (diffusers' `upcast_attention`).

    Returns:
      `[B, Lq, heads, D]`, in the type of `value`. The softmax is always in float32.
    """
    if upcast:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits *= query.shape[-1] ** -0.5
    if causal:
        visible = jnp.tri(query.shape[1], key.shape[1], dtype=bool)
        logits = jnp.where(visible, logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
