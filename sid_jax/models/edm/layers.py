"""The layers of EDM's networks: linear layers, convolutions that change the resolution, embeddings, and the block."""

import dataclasses
import math
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.models.edm.config import groups_of
from sid_jax.models.edm.init import Init
from sid_jax.models.edm.resample import BOX, Filter, Resample, down, filter_constant, halved, up
from sid_jax.models.layers.attention import attend
from sid_jax.models.layers.constant import Constant
from sid_jax.models.layers.execution import Execution, materialised
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.resnet import convolution_of, group_norm


def linear(
    in_channels: int, out_channels: int, init: Init, *, use_bias: bool = True, **layer: Unpack[LayerOptions]
) -> nnx.Linear:
    """A linear layer that computes in float32, whatever `layer` says: all that have to do with embeddings do."""
    return nnx.Linear(
        in_channels,
        out_channels,
        use_bias=use_bias,
        kernel_init=init.kernel_init(in_channels, out_channels),
        bias_init=init.bias_init(in_channels, out_channels),
        **{**layer, "dtype": jnp.float32},
    )


class Conv2d(nnx.Conv):
    """A convolution, before which the resolution may change.

    Args:
      in_channels: C of the input `[B, H, W, C]`.
      out_channels: C of the output.
      size: of the kernel, odd.
      init: its initial values.
      change: of the resolution: "up", "down", "fused_down" (after the convolution, in full resolution), or "".
      taps: of the filter of the change.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        init: Init,
        *,
        change: str = "",
        taps: Filter = BOX,
        execution: Execution | None = None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        fans = in_channels * size**2, out_channels * size**2
        fused = change == "fused_down"
        super().__init__(
            in_channels,
            out_channels,
            (size, size),
            padding=size // 2 + (len(taps) - 1) // 2 * fused,
            kernel_init=init.kernel_init(*fans),
            bias_init=init.bias_init(*fans),
            conv_general_dilated=convolution_of(size, None if fused else execution),
            **layer,
        )
        self.change, self.taps = change, taps
        if change:
            self.resample_filter = filter_constant(taps)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """`[B, H, W, in_channels]` -> `[B, H', W', out_channels]`."""
        if self.change == "up":
            x = up(x, self.taps)
        elif self.change == "down":
            x = down(x, self.taps)
        x = super().__call__(x)
        # The bias is the same before the filter as after it, as the filter's weights add up to 1.
        return halved(x, self.taps) if self.change == "fused_down" else x


class PositionalEmbedding(nnx.Module):
    """Cosines and sines of numbers at frequencies from 1 down to 1/10,000.

    Args:
      channels: even number of outputs.
      endpoint: whether the lowest frequency is 1/10,000 itself.
    """

    def __init__(self, channels: int, *, endpoint: bool) -> None:
        self.channels, self.endpoint = channels, endpoint

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B]` -> `[B, channels]`, float32: all cosines, then all sines."""
        half = self.channels // 2
        exponents = np.arange(half, dtype=np.float32) / np.float32(half - self.endpoint)
        # Angles are as large as 1,000: these are rounded as the published code's are.
        frequencies = np.power(np.float64(np.float32(1e-4)), exponents).astype(np.float32)
        return _waves(x.astype(jnp.float32)[:, None] * frequencies)


class FourierEmbedding(nnx.Module):
    """Cosines and sines of numbers at random frequencies.

    Args:
      channels: even number of outputs.
      rngs: for the frequencies of networks that are made here.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.freqs = Constant(16 * jax.random.normal(rngs.params(), (channels // 2,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B]` -> `[B, channels]`, float32: all cosines, then all sines."""
        # The angles are large, and what they are rounded to shows: without the barrier XLA may multiply in another
        # order.
        frequencies = jax.lax.optimization_barrier(2 * math.pi * self.freqs[...])
        return _waves(x.astype(jnp.float32)[:, None] * frequencies)


def _waves(angles: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


@dataclasses.dataclass(frozen=True)
class BlockStyle:
    """What the blocks of one network have in common.

    Attributes:
      embedding_channels: E, of the embedding.
      eps: of the norms.
      skip_scale: what sums are multiplied by.
      adaptive: whether the embedding scales and shifts the second norm's output; otherwise it is added to its input.
      project_changes: whether a block that changes the resolution alone has a convolution beside its path too.
      taps: of the filter of changes of the resolution.
      dropout: probability.
      init: initial values of layers, of `qkv`, and of what a block adds to its input.
    """

    embedding_channels: int
    eps: float
    skip_scale: float
    adaptive: bool
    project_changes: bool
    taps: Filter
    dropout: float
    init: Init
    init_qkv: Init
    init_last: Init


class UNetBlock(nnx.Module):
    """norm, silu, convolution, the embedding, norm, silu, dropout, convolution, plus the input; then attention.

    Args:
      in_channels: C of the input.
      out_channels: C of the output.
      style: of the network.
      change: of the resolution: "up", "down" or "".
      heads: of the attention, 0 for none.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style: BlockStyle,
        *,
        change: str = "",
        heads: int = 0,
        execution: Execution | None = None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        self.style, self.heads, self.execution = style, heads, execution
        self.norm0 = group_norm(in_channels, groups_of(in_channels), style.eps, **layer)
        self.conv0 = Conv2d(
            in_channels, out_channels, 3, style.init, change=change, taps=style.taps, execution=execution, **layer
        )
        told = out_channels * (2 if style.adaptive else 1)
        self.affine = linear(style.embedding_channels, told, style.init, **layer)
        self.norm1 = group_norm(out_channels, groups_of(out_channels), style.eps, **layer)
        self.conv1 = Conv2d(out_channels, out_channels, 3, style.init_last, execution=execution, **layer)
        if out_channels != in_channels or (change and style.project_changes):
            self.skip: Conv2d | Resample = Conv2d(
                in_channels, out_channels, 1, style.init, change=change, taps=style.taps, execution=execution, **layer
            )
        elif change:
            self.skip = Resample(change, style.taps)
        if heads:
            self.norm2 = group_norm(out_channels, groups_of(out_channels), style.eps, **layer)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, style.init_qkv, execution=execution, **layer)
            self.proj = Conv2d(out_channels, out_channels, 1, style.init_last, execution=execution, **layer)

    def __call__(self, x: jax.Array, embedding: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """The block's output.

        Args:
          x: `[B, H, W, in_channels]`.
          embedding: `[B, E]`, float32.
          dropout_key: None: no dropout.

        Returns:
          `[B, H', W', out_channels]`.
        """
        style = self.style
        h = self.conv0(nnx.silu(self.norm0(x)))
        told = self.affine(embedding).astype(h.dtype)[:, None, None]
        if style.adaptive:
            scale, shift = jnp.split(told, 2, axis=-1)
            h = shift + self.norm1(h) * (scale + 1)
        else:
            h = self.norm1(h + told)
        h = nnx.silu(h)
        if dropout_key is not None and style.dropout > 0:
            h = _dropout(dropout_key, h, style.dropout)
        h = self.conv1(h)
        x = self.skip(x) if hasattr(self, "skip") else x
        x = materialised(self.execution, (h + x) * style.skip_scale)
        if self.heads:
            x = materialised(self.execution, (x + self._attention(x)) * style.skip_scale)
        return x

    def _attention(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        # Of the three, the index is the innermost: outputs 0, 1 and 2 of `qkv` are query, key and value of the first
        # channel of the first head.
        qkv = self.qkv(self.norm2(x)).reshape(batch, height * width, self.heads, channels // self.heads, 3)
        query, key, value = (qkv[..., i] for i in range(3))
        return self.proj(attend(query, key, value, execution=self.execution).reshape(x.shape))


def _dropout(key: jax.Array, x: jax.Array, probability: float) -> jax.Array:
    """Zeros with a probability, and the rest scaled up to the same mean."""
    kept = jax.random.bernoulli(key, jnp.float32(1 - probability), x.shape)
    return jnp.where(kept, x / (1 - probability), jnp.zeros((), x.dtype))
