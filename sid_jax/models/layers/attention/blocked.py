"""Attention in plain JAX for the caches of CPUs: of the logits, only a block that fits a cache is ever there.

A loop goes over groups of heads, an inner one over blocks of queries. Beside the output the forward pass keeps the
logarithm of each row's sum, from which the backward pass makes a block's weights again (Dao et al. 2022,
arXiv 2205.14135). A block has keys along its rows: sums and largest entries over keys then add up whole vectors, and
most products are of matrices as they lie in memory.

Where several heads fit and each has logits enough, a turn of the outer loop has as many lanes, of one head each, which
don't wait for each other: XLA runs them side by side, one's softmax beside another's product. And where a head has not
many more weights than queries, these are kept, and not made again.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LOGITS = 2**19
"""Of a block, or of all lanes: 2 MiB in float32, of which there are two in the backward pass."""
LANE = 2**15
"""The fewest of a lane; heads of fewer are computed together."""
KEPT = 8
"""A lane's weights are kept where they are at most so many times the numbers of its queries."""
QUERIES = 256
"""The fewest of a block, however many keys there are: with fewer, products take longer than what the cache saves."""


_Softmax = jax.Array | tuple[jax.Array, jax.Array]
"""Of a block: the logarithm of each row's sum; or the weights without their sums, and one divided by each sum."""


class _Sizes(NamedTuple):
    """heads: of a product. queries: of a block. blocks: of a head. lanes: of a turn. kept: the weights are."""

    heads: int
    queries: int
    blocks: int
    lanes: int = 1
    kept: bool = False


def blocked(
    query: jax.Array, key: jax.Array, value: jax.Array, *, logits: int = LOGITS, queries: int = QUERIES
) -> jax.Array:
    """Attention, some heads or some of a head's queries at a time.

    Args:
      query: `[B, Lq, heads, D]`.
      key: `[B, Lk, heads, D]`.
      value: `[B, Lk, heads, D]`.
      logits: of a block, or of all lanes.
      queries: of a block where a block of these already has as many logits, or more. The last block of a head, where
        it is not full, is filled up.

    Returns:
      `[B, Lq, heads, D]`, in the type of `value`.
    """
    return _attention(query, key, value, _sizes(query, key, logits, queries))


def _sizes(query: jax.Array, key: jax.Array, logits: int, queries: int) -> _Sizes:
    length, keys, heads = query.shape[1], key.shape[1], query.shape[0] * query.shape[2]
    head = length * keys
    if head <= logits:
        together = max(n for n in range(1, heads + 1) if heads % n == 0 and (n == 1 or n * head <= logits))
        if head < LANE:
            return _Sizes(together, length, 1)
        return _Sizes(1, length, 1, lanes=together, kept=keys <= KEPT * query.shape[3])
    most = max(1, logits // (keys * queries)) * queries
    blocks = -(-length // most)
    return _Sizes(1, -(-length // blocks), blocks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(query: jax.Array, key: jax.Array, value: jax.Array, sizes: _Sizes) -> jax.Array:
    return _forward(query, key, value, sizes)[0]


def _forward(query: jax.Array, key: jax.Array, value: jax.Array, sizes: _Sizes) -> tuple[jax.Array, tuple[Any, ...]]:
    scale = query.shape[-1] ** -0.5

    def heads(args: tuple[jax.Array, ...]) -> tuple[jax.Array, _Softmax]:
        queries, key, turned_value = args

        def block(query: jax.Array) -> tuple[jax.Array, _Softmax]:
            logits = _product(key, query, 2, 2)
            largest = logits.max(axis=1) * scale
            weights = jnp.exp(logits * scale - largest[:, None])
            total = weights.sum(axis=1)
            rounded = weights.astype(value.dtype)
            out = _over_keys(turned_value, rounded, sizes) / total[:, None]
            softmax = (rounded, 1 / total) if sizes.kept else largest + jnp.log(total)
            return out.swapaxes(1, 2).astype(value.dtype), softmax

        return jax.lax.map(block, queries)

    keys = _whole(key, sizes), _turned(_whole(value, sizes), sizes)
    out, softmax = _loop(heads, (_blocks(query, sizes), *keys), sizes)
    out = _joined(out, query)
    return out, (query, key, value, out, softmax)


def _backward(sizes: _Sizes, kept: tuple[Any, ...], of_out: jax.Array) -> tuple[jax.Array, ...]:
    query, key, value, out, softmax = kept
    scale = query.shape[-1] ** -0.5
    # What the softmax's derivative subtracts from each row, as in plain attention.
    mean = jnp.sum(out.astype(jnp.float32) * of_out.astype(jnp.float32), axis=-1, keepdims=True)

    def heads(args: tuple[Any, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
        *queries, keys, values, turned_keys = args

        def block(
            sums: tuple[jax.Array, jax.Array], args: tuple[Any, ...], keys: tuple[jax.Array, ...]
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            query, of_out, mean, softmax = args
            key, value, turned_key = keys
            if sizes.kept:
                # A row's weights are to be divided by their sum. Its gradient is divided instead, which is shorter.
                weights, of_sums = softmax
                of_out, mean = (of_out * of_sums[..., None]).astype(of_out.dtype), mean * of_sums[..., None]
            else:
                weights = jnp.exp(_product(key, query, 2, 2) * scale - softmax[:, None])
            of_weights = _product(value, of_out, 2, 2)
            of_logits = (weights * (of_weights - mean[..., 0][:, None])).astype(query.dtype)
            of_query = _over_keys(turned_key, of_logits, sizes)
            of_key = _product(of_logits, query, 2, 1)
            of_value = _product(weights.astype(of_out.dtype), of_out, 2, 1)
            return (sums[0] + of_key, sums[1] + of_value), of_query

        def part(of_query: jax.Array, keys: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            start = (jnp.zeros(keys[0].shape, jnp.float32), jnp.zeros(keys[1].shape, jnp.float32))
            of_keys, more = jax.lax.scan(functools.partial(block, keys=keys), start, tuple(queries))
            return of_query + more, of_keys

        of_query = jnp.zeros(queries[0].swapaxes(2, 3).shape, jnp.float32)
        of_query, (of_key, of_value) = jax.lax.scan(part, of_query, (keys, values, turned_keys))
        return (of_query * scale).astype(query.dtype), (of_key * scale).astype(key.dtype), of_value.astype(value.dtype)

    # The backward pass has as large blocks, but squarer ones, so that what is added up is read and written less often.
    square = _squarer(sizes, key.shape[1])
    if not sizes.kept:
        softmax = softmax.reshape(-1, square.blocks, square.heads, square.queries)
    queries = (*(_blocks(x, square) for x in (query, of_out, mean)), softmax)
    parts = sizes.blocks // square.blocks
    key_parts = _Sizes(square.heads, key.shape[1] // parts, parts)
    keys, values = _blocks(key, key_parts), _blocks(value, key_parts)
    of_query, *of_others = _loop(heads, (*queries, keys, values, _turned(keys, sizes)), sizes)
    return _joined(of_query.swapaxes(3, 4), query), *(_joined(x, key) for x in of_others)


def _squarer(sizes: _Sizes, keys: int) -> _Sizes:
    """Blocks of several times as many queries, for as many times fewer keys."""
    fit = (n for n in (4, 2) if sizes.blocks % n == 0 and keys % n == 0 and keys // n >= sizes.queries * n)
    times = next(fit, 1)
    return sizes._replace(queries=sizes.queries * times, blocks=sizes.blocks // times)


_attention.defvjp(_forward, _backward)


def _loop(heads: Callable[[Any], Any], groups: Any, sizes: _Sizes) -> Any:
    """`heads` of each group, stacked."""
    return jax.lax.scan(lambda nothing, group: (nothing, heads(group)), None, groups, unroll=sizes.lanes)[1]


def _product(a: jax.Array, b: jax.Array, over_a: int, over_b: int) -> jax.Array:
    """Products of each head's matrices, summed over an axis of both.

    All have the axis of heads, also where there is one of them: by it `remat` tells attention's products, which are
    not worth keeping, from those of layers.
    """
    dimensions = (((over_a,), (over_b,)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _turned(x: jax.Array, sizes: _Sizes) -> jax.Array:
    """`[..., L, D]` -> `[..., D, L]`, but in lanes: for `_over_keys`."""
    return x if sizes.lanes > 1 else x.swapaxes(-1, -2)


def _over_keys(turned: jax.Array, weights: jax.Array, sizes: _Sizes) -> jax.Array:
    """The keys or values that `_turned` gave, by their weights: `[heads, D, queries]`.

    YNNPACK's product, which is the fastest by itself, wants matrices that are turned in memory. Lanes are faster where
    some of their products are XLA's own.
    """
    return _product(turned, weights, 1 if sizes.lanes > 1 else 2, 1)


def _whole(x: jax.Array, sizes: _Sizes) -> jax.Array:
    """`[B, L, heads, D]` -> `[groups, heads of a group, L, D]`."""
    return x.swapaxes(1, 2).reshape(-1, sizes.heads, x.shape[1], x.shape[3])


def _blocks(x: jax.Array, sizes: _Sizes) -> jax.Array:
    """`[B, Lq, heads, D]` -> `[groups, blocks, heads of a group, queries, D]`, filled up with zeros.

    A query of zeros has finite weights, and with a gradient of zeros no share in the other gradients.
    """
    x = jnp.pad(x, ((0, 0), (0, sizes.blocks * sizes.queries - x.shape[1]), (0, 0), (0, 0)))
    x = _whole(x, sizes).reshape(-1, sizes.heads, sizes.blocks, sizes.queries, x.shape[3])
    return x.swapaxes(1, 2)


def _joined(x: jax.Array, like: jax.Array) -> jax.Array:
    """The inverse of `_blocks`, of which `like` is an argument."""
    batch, length, heads, size = like.shape
    return x.swapaxes(1, 2).reshape(batch, heads, -1, size).swapaxes(1, 2)[:, :length]
