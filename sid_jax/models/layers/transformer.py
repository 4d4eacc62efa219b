"""Spatial transformer of the UNet: self-attention over positions, cross-attention to the text, feed-forward."""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.layers.attention import attend
from sid_jax.models.layers.execution import Execution, run
from sid_jax.models.layers.loop import lean_loop, loop
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.product import product_of
from sid_jax.models.layers.resnet import conv, group_norm


class Identity(nnx.Module):
    """Stands where diffusers has a dropout layer, so that the layer after it has diffusers' number in its name."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x`."""
        return x


def linear(
    in_channels: int,
    out_channels: int,
    execution: Execution | None,
    *,
    use_bias: bool = True,
    **layer: Unpack[LayerOptions],
) -> nnx.Linear:
    """A linear layer of sequences, `[B, L, in_channels]` -> `[B, L, out_channels]`."""
    return nnx.Linear(in_channels, out_channels, use_bias=use_bias, dot_general=product_of(execution), **layer)


class MultiHeadAttention(nnx.Module):
    """The projections of multi-head attention, and what is computed with them.

    Args:
      channels: C of the queries' input, and of the output.
      heads: a divisor of `channels`.
      context_channels: C of the input of keys and values; None: `channels`.
      qkv_bias: whether the projections to queries, keys and values have biases.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        context_channels: int | None = None,
        qkv_bias: bool = False,
        execution: Execution | None = None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        context_channels = context_channels or channels
        self.to_q = linear(channels, channels, execution, use_bias=qkv_bias, **layer)
        self.to_k = linear(context_channels, channels, execution, use_bias=qkv_bias, **layer)
        self.to_v = linear(context_channels, channels, execution, use_bias=qkv_bias, **layer)
        self.to_out = nnx.List([linear(channels, channels, execution, **layer)])
        self.heads = heads
        self.execution = execution

    def attention(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """Attention of `x` `[B, L, channels]` to `context` `[B, Lc, context_channels]`: `[B, L, channels]`."""

        def split(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:2], self.heads, -1)

        query, key, value = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        out = attend(query, key, value, execution=self.execution)
        return self.to_out[0](out.reshape(x.shape))


class Attention(MultiHeadAttention):
    """Multi-head attention to a context, or to its own input where there is none. Arguments as MultiHeadAttention's."""

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """`x` `[B, L, channels]`, `context` `[B, Lc, context_channels]` -> `[B, L, channels]`."""
        return self.attention(x, x if context is None else context)


@jax.custom_vjp
def geglu(x: jax.Array) -> jax.Array:
    """value * GELU(gate) with the exact GELU.

    Args:
      x: `[..., 2 C]`: the value, and after it the gate.

    Returns:
      `[..., C]`.
    """
    value, gate = jnp.split(x, 2, axis=-1)
    return value * nnx.gelu(gate, approximate=False)


def _geglu_backward(x: jax.Array, of_out: jax.Array) -> tuple[jax.Array]:
    # GELU(g) = g P(g), where P is the distribution function of the normal law and p its density. The derivative is
    # P(g) + g p(g). P is written in two ways here: if both halves shared it, compilers would store it in between. These
    # arrays are the network's largest, and the layer's time goes into reading and writing them.
    value, gate = (half.astype(jnp.float32) for half in jnp.split(x, 2, axis=-1))
    of_out = of_out.astype(jnp.float32)
    of_value = of_out * gate * 0.5 * jax.lax.erfc(-gate * 2**-0.5)
    density = (2 * math.pi) ** -0.5 * jnp.exp(-0.5 * gate * gate)
    of_gate = of_out * value * (0.5 + 0.5 * jax.lax.erf(gate * 2**-0.5) + gate * density)
    return (jnp.concatenate([of_value, of_gate], axis=-1).astype(x.dtype),)


geglu.defvjp(lambda x: (geglu(x), x), _geglu_backward)


class GEGLU(nnx.Module):
    """Gated linear unit with GELU (Shazeer 2020).

    Args:
      dim: width of the input.
      inner: width of the output.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(self, dim: int, inner: int, execution: Execution | None, **layer: Unpack[LayerOptions]) -> None:
        self.proj = linear(dim, 2 * inner, execution, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., dim]` -> `[..., inner]`."""
        return geglu(self.proj(x))


class FeedForward(nnx.Module):
    """GEGLU to four times the width, and back.

    Args:
      dim: width of input and output.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(self, dim: int, execution: Execution | None, **layer: Unpack[LayerOptions]) -> None:
        inner = 4 * dim
        self.net = nnx.List([GEGLU(dim, inner, execution, **layer), Identity(), linear(inner, dim, execution, **layer)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., dim]` -> `[..., dim]`."""
        for module in self.net:
            x = module(x)
        return x


class BasicTransformerBlock(nnx.Module):
    """Self-attention, cross-attention and feed-forward, each on a layer norm and added to its input.

    Args:
      dim: width of input and output.
      heads: a divisor of `dim`.
      context_channels: width of the context.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        context_channels: int,
        execution: Execution | None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        self.norm1 = nnx.LayerNorm(dim, epsilon=1e-5, **layer)
        self.attn1 = Attention(dim, heads, execution=execution, **layer)
        self.norm2 = nnx.LayerNorm(dim, epsilon=1e-5, **layer)
        self.attn2 = Attention(dim, heads, context_channels=context_channels, execution=execution, **layer)
        self.norm3 = nnx.LayerNorm(dim, epsilon=1e-5, **layer)
        self.ff = FeedForward(dim, execution, **layer)

    def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """`x` `[B, L, dim]`, `context` `[B, Lc, context_channels]` -> `[B, L, dim]`."""
        x += self.attn1(self.norm1(x))
        x += self.attn2(self.norm2(x), context)
        x += self.ff(self.norm3(x))
        return x


class Transformer2DModel(nnx.Module):
    """Transformer blocks over the positions of a feature map, between two projections, added to the input.

    Args:
      channels: C of the feature map.
      heads: a divisor of `channels`.
      depth: number of blocks.
      context_channels: width of the context.
      groups: of the norm before the first projection.
      linear_projection: whether files hold the projections as linear layers, or as 1x1 convolutions.
      execution: None: plain JAX on one device, without a loop over the blocks.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        depth: int,
        context_channels: int,
        groups: int,
        linear_projection: bool,
        execution: Execution | None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        def projection() -> nnx.Linear | nnx.Conv:
            # On the last axis, a 1x1 convolution and a linear layer compute the same.
            if linear_projection:
                return linear(channels, channels, execution, **layer)
            return conv(channels, channels, 1, execution=execution, **layer)

        self.execution, self.dtype = execution, layer.get("dtype")
        self.norm = group_norm(channels, groups, 1e-6, **layer)
        self.proj_in = projection()
        self.transformer_blocks = nnx.List(
            [
                BasicTransformerBlock(channels, heads, context_channels=context_channels, execution=execution, **layer)
                for _ in range(depth)
            ]
        )
        self.proj_out = projection()

    def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """`x` `[B, H, W, channels]`, `context` `[B, L, context_channels]` -> `[B, H, W, channels]`."""
        h = run(self.execution, lambda self, x: self.proj_in(self.norm(x)), self, x)
        h = h.reshape(x.shape[0], -1, x.shape[-1])
        if len(self.transformer_blocks) > 1 and self.execution is not None and self.execution.scan:
            h = self._loop(self.execution, h, context)
        else:
            for block in self.transformer_blocks:
                h = run(self.execution, BasicTransformerBlock.__call__, block, h, context)
        return x + self.proj_out(h.reshape(x.shape))

    def _loop(self, execution: Execution, h: jax.Array, context: jax.Array) -> jax.Array:
        """All blocks as one loop over their parameters, stacked."""
        graphs, params = zip(*map(nnx.split, self.transformer_blocks), strict=True)

        def block(params: nnx.State, h: jax.Array, context: jax.Array) -> jax.Array:
            return nnx.merge(graphs[0], params)(h, context)

        if execution.remat == "full":
            return lean_loop(block, params, h, context, self.dtype)

        def kept(params: nnx.State, h: jax.Array, context: jax.Array) -> jax.Array:
            module = nnx.merge(graphs[0], params)
            return run(execution, BasicTransformerBlock.__call__, module, h, context, in_loop=True)

        return loop(kept, params, h, context, self.dtype)
