"""Attention as it is written: all logits in memory."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def plain(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool = False) -> jax.Array:
    """Attention with all logits in memory.

    Args:
      query: `[B, Lq, heads, D]`.
      key: `[B, Lk, heads, D]`.
      value: `[B, Lk, heads, D]`.
      causal: position i sees the positions up to i only.

    Returns:
      `[B, Lq, heads, D]`, in the type of `value`.
    """
    return _forward(query, key, value, causal)[0]


def _forward(
    query: jax.Array, key: jax.Array, value: jax.Array, causal: bool
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits *= query.shape[-1] ** -0.5
    if causal:
        visible = jnp.tri(query.shape[1], key.shape[1], dtype=bool)
        logits = jnp.where(visible, logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return out, (query, key, value, weights, out)


def _backward(causal: bool, kept: tuple[jax.Array, ...], of_out: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    # The softmax's derivative subtracts from each row the sum over keys of weight times gradient. That sum equals
    # <out, of_out>, which is known before the weights' gradients are. So these need not be read twice, nor kept in
    # float32.
    query, key, value, weights, out = kept
    mean = jnp.einsum("bqhd,bqhd->bhq", out, of_out, preferred_element_type=jnp.float32)
    of_weights = jnp.einsum("bqhd,bkhd->bhqk", of_out, value, preferred_element_type=jnp.float32)
    of_logits = (weights * (of_weights - mean[..., None]) * query.shape[-1] ** -0.5).astype(query.dtype)
    of_query = jnp.einsum("bhqk,bkhd->bqhd", of_logits, key)
    of_key = jnp.einsum("bhqk,bqhd->bkhd", of_logits, query)
    of_value = jnp.einsum("bhqk,bqhd->bkhd", weights, of_out)
    return of_query, of_key, of_value


plain.defvjp(_forward, _backward)
