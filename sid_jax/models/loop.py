"""Equal blocks in a row as one loop, which is compiled once however many they are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Block = Callable[[Any, jax.Array, jax.Array], jax.Array]


def loop(block: Block, params: Sequence[Any], h: jax.Array, context: jax.Array, dtype: Any = None) -> jax.Array:
    """`h = block(p, h, context)` for each `p` of `params`.

    Args:
      block: pure.
      params: trees of the same structure, shapes and types.
      h: `[B, L, C]`.
      context: what all blocks read.
      dtype: what the block would cast matrices to; they are stacked in it.
    """

    def body(h: jax.Array, params: Any) -> tuple[jax.Array, None]:
        return block(params, h, context), None

    return jax.lax.scan(body, h, _stack(params, dtype))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def lean_loop(block: Block, params: Sequence[Any], h: jax.Array, context: jax.Array, dtype: Any = None) -> jax.Array:
    """As `loop`, but all that the backward pass finds is the blocks' inputs: it stacks the parameters again.

    In the generator's update three networks wait for their backward pass at once, each with a copy of its blocks
    otherwise. What is computed again includes the attention kernels.
    """
    return _forward(block, params, h, context, dtype)[0]


def _forward(block, params, h, context, dtype):
    def body(h: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        return block(params, h, context), h

    # The barriers here and below keep XLA from stacking once for all: ahead of a loop around this one, or for both
    # passes.
    params, h = jax.lax.optimization_barrier((params, h))
    out, inputs = jax.lax.scan(body, h, _stack(params, dtype))
    return out, (params, inputs, context)


def _backward(block, dtype, residuals, of_out):
    params, inputs, context = residuals
    params, of_out = jax.lax.optimization_barrier((params, of_out))

    def body(carry: tuple[jax.Array, jax.Array], of_block: tuple[Any, jax.Array]) -> tuple[Any, Any]:
        of_h, of_context = carry
        of_params, of_h, more = jax.vjp(block, *of_block, context)[1](of_h)
        return (of_h, of_context + more), of_params

    start = of_out, jnp.zeros_like(context)
    (of_h, of_context), stacked = jax.lax.scan(body, start, (_stack(params, dtype), inputs), reverse=True)
    of_params = tuple(
        jax.tree.map(lambda gradients, leaf, i=i: gradients[i].astype(leaf.dtype), stacked, one)
        for i, one in enumerate(params)
    )
    return of_params, of_h, of_context


lean_loop.defvjp(_forward, _backward)


def _stack(params: Sequence[Any], dtype: Any) -> Any:
    def stack(*leaves: jax.Array) -> jax.Array:
        # The large ones in the type that they would be cast to anyway.
        return jnp.stack([leaf.astype(dtype or leaf.dtype) if leaf.ndim > 1 else leaf for leaf in leaves])

    return jax.tree.map(stack, *params)
