"""Equal blocks in a row as one loop, which is compiled once however many they are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Block = Callable[[Any, jax.Array, jax.Array], jax.Array]


def loop(block: Block, params: Sequence[Any], h: jax.Array, context: jax.Array, dtype: Any = None) -> jax.Array:
    """`h = block(p, h, context)` for each `p` of `params`, in this order.

    Args:
      block: pure.
      params: trees of the same structure, shapes and types.
      h: `[B, L, C]`.
      context: what all blocks read.
      dtype: the type that the block casts matrices to, in which they are stacked; None: they are stacked as they are.

    Returns:
      `[B, L, C]`.
    """

    def body(h: jax.Array, params: Any) -> tuple[jax.Array, None]:
        return block(params, h, context), None

    return jax.lax.scan(body, h, _stack(params, dtype))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def lean_loop(block: Block, params: Sequence[Any], h: jax.Array, context: jax.Array, dtype: Any = None) -> jax.Array:
    """As `loop`, but only the blocks' inputs are kept: the backward pass stacks the parameters again.

    In the generator's update three networks wait for their backward pass at once. Each would otherwise hold a stacked
    copy of its blocks. The backward pass computes everything else again too, the attention kernels included.

    Args:
      block: pure.
      params: trees of the same structure, shapes and types.
      h: `[B, L, C]`.
      context: what all blocks read.
      dtype: the type that the block casts matrices to, in which they are stacked; None: they are stacked as they are.

    Returns:
      `[B, L, C]`.
    """
    return _forward(block, params, h, context, dtype)[0]


def _forward(
    block: Block, params: Sequence[Any], h: jax.Array, context: jax.Array, dtype: Any
) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array]]:
    def body(h: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        return block(params, h, context), h

    # Without the barriers, here and below, XLA would stack the parameters once and keep them: ahead of a loop around
    # this one, or for both passes.
    params, h = jax.lax.optimization_barrier((params, h))
    out, inputs = jax.lax.scan(body, h, _stack(params, dtype))
    return out, (params, inputs, context)


def _backward(
    block: Block, dtype: Any, residuals: tuple[Any, jax.Array, jax.Array], of_out: jax.Array
) -> tuple[Any, jax.Array, jax.Array]:
    params, inputs, context = residuals
    # The gradients' arrays are filled with a zero that comes out of the barrier. With a plain zero XLA would make these
    # arrays long before they are needed.
    params, of_out, zero = jax.lax.optimization_barrier((params, of_out, jnp.float32(0)))
    stacked = _stack(params, dtype)

    def body(carry: tuple[jax.Array, jax.Array, Any], of_block: tuple[jax.Array, Any, jax.Array]) -> tuple[Any, None]:
        of_h, of_context, of_stacked = carry
        i, one, h = of_block
        of_one, of_h, more = jax.vjp(block, one, h, context)[1](of_h)
        of_stacked = jax.tree.map(lambda gradients, new: gradients.at[i].set(new), of_stacked, of_one)
        return (of_h, of_context + more, of_stacked), None

    zeros = jax.tree.map(lambda leaf: jnp.full_like(leaf, zero), stacked)
    start = of_out, jnp.zeros_like(context), zeros
    blocks = jnp.arange(len(params)), stacked, inputs
    (of_h, of_context, of_stacked), _ = jax.lax.scan(body, start, blocks, reverse=True)
    of_params = tuple(
        jax.tree.map(lambda gradients, leaf, i=i: gradients[i].astype(leaf.dtype), of_stacked, one)
        for i, one in enumerate(params)
    )
    return of_params, of_h, of_context


lean_loop.defvjp(_forward, _backward)


def _stack(params: Sequence[Any], dtype: Any) -> Any:
    """One tree of arrays `[len(params), ...]`."""

    def stack(*leaves: jax.Array) -> jax.Array:
        # Matrices are large, and the block casts them anyway: they are stacked in the smaller type.
        return jnp.stack([leaf.astype(dtype or leaf.dtype) if leaf.ndim > 1 else leaf for leaf in leaves])

    return jax.tree.map(stack, *params)
