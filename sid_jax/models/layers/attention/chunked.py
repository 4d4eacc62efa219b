"""Attention in plain JAX that never holds more than one chunk of the logits (Rabe and Staats 2021, arXiv 2112.05682).

An outer loop goes over chunks of queries, an inner one over chunks of keys with a running maximum and sum (the online
softmax). Both bodies are checkpoints, so that the backward pass computes a chunk's logits again where it needs them.
"""

import functools

import jax
import jax.numpy as jnp

CHUNK = 1024  # positions; a chunk of logits is this squared, for each head and sample


def chunked(query: jax.Array, key: jax.Array, value: jax.Array, *, chunk: int = CHUNK) -> jax.Array:
    """Attention, one chunk of queries and one of keys at a time.

    Args:
      query: `[B, Lq, heads, D]`.
      key: `[B, Lk, heads, D]`.
      value: `[B, Lk, heads, D]`.
      chunk: positions. The last chunk, where it is not full, is filled up.

    Returns:
      `[B, Lq, heads, D]`, in the type of `value`.
    """
    keys, values = _split(key, chunk), _split(value, chunk)
    present = _split(jnp.ones((1, key.shape[1], 1, 1), bool), chunk)
    one = jax.checkpoint(functools.partial(_one_query_chunk, keys=keys, values=values, present=present))
    out = jax.lax.map(one, _split(query, chunk))
    out = jnp.moveaxis(out, 0, 1).reshape(query.shape[0], -1, *query.shape[2:])
    return out[:, : query.shape[1]]


def _split(x: jax.Array, chunk: int) -> jax.Array:
    """`[B, L, ...]` -> `[ceil(L / chunk), B, chunk, ...]`, filled up with zeros."""
    chunk = min(chunk, x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % chunk), *((0, 0),) * (x.ndim - 2)))
    return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)


def _one_query_chunk(query: jax.Array, keys: jax.Array, values: jax.Array, present: jax.Array) -> jax.Array:
    """Attention of one chunk of queries `[B, Lq, heads, D]` to all chunks of keys `[chunks, B, Lk, heads, D]`."""
    batch, length, heads, size = query.shape

    @jax.checkpoint
    def add_chunk(
        state: tuple[jax.Array, jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        maximum, total, out = state  # [B, heads, Lq], [B, heads, Lq], [B, Lq, heads, D]: float32
        key, value, there = chunk
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32) * size**-0.5
        logits = jnp.where(there[..., 0, 0], logits, -jnp.inf)
        new = jnp.maximum(maximum, logits.max(axis=-1))
        weights = jnp.exp(logits - new[..., None])
        rescale = jnp.exp(maximum - new)
        part = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
        out = out * jnp.moveaxis(rescale, 1, 2)[..., None] + part
        return (new, total * rescale + weights.sum(axis=-1), out), None

    maximum = jnp.full((batch, heads, length), -jnp.inf)
    start = (maximum, jnp.zeros_like(maximum), jnp.zeros((batch, length, heads, size)))
    (_, total, out), _ = jax.lax.scan(add_chunk, start, (keys, values, present))
    return (out / jnp.moveaxis(total, 1, 2)[..., None]).astype(values.dtype)
