"""Residual convolution blocks and changes of resolution, shared by the UNet and the autoencoder."""

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.layers import winograd
from sid_jax.models.layers.execution import Execution, is_on, materialised
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.product import flat_pointwise, pointwise


def conv(
    in_channels: int,
    out_channels: int,
    size: int = 3,
    *,
    strides: int = 1,
    execution: Execution | None = None,
    **layer: Unpack[LayerOptions],
) -> nnx.Conv:
    """A `size` x `size` convolution, padded by `size // 2` on every side, as PyTorch's are.

    Args:
      in_channels: C of the input `[B, H, W, C]`.
      out_channels: C of the output.
      size: of the kernel, odd.
      strides: along both sides.
      execution: None: XLA's convolution, whatever the platform.
      **layer: see `LayerOptions`.
    """
    return nnx.Conv(
        in_channels,
        out_channels,
        (size, size),
        strides=strides,
        padding=size // 2,
        conv_general_dilated=convolution_of(size, execution),
        **layer,
    )


def convolution_of(size: int, execution: Execution | None) -> Callable[..., jax.Array]:
    """What computes a layer's `size` x `size` convolution, of which those of 1x1 and 3x3 have a form for CPUs."""
    on_cpu = is_on(execution, "cpu")
    if size == 1:
        return flat_pointwise if on_cpu else pointwise
    return winograd.convolution if on_cpu and size == 3 else jax.lax.conv_general_dilated


def group_norm(channels: int, groups: int, eps: float, **layer: Unpack[LayerOptions]) -> nnx.GroupNorm:
    """Group normalisation with float32 statistics.

    The variance of float32 inputs is computed in two passes, which is exact where the mean is large. That of inputs in
    half precision is computed in one, as E[x^2] - E[x]^2: in float32 it loses fewer digits than the input has lost.

    Args:
      channels: C of the input `[B, H, W, C]`.
      groups: a divisor of `channels`.
      eps: added to the variance.
      **layer: see `LayerOptions`.
    """
    exact = layer.get("dtype") in (None, jnp.float32)
    return nnx.GroupNorm(channels, num_groups=groups, epsilon=eps, use_fast_variance=not exact, **layer)


class ResnetBlock2D(nnx.Module):
    """norm, silu, conv, plus the time embedding, norm, silu, conv, plus the (projected) input.

    Args:
      in_channels: C of the input.
      out_channels: C of the output.
      groups: of the norms.
      eps: of the norms.
      time_embed_dim: width of the time embedding; None makes the autoencoder's block, which has no time.
      output_scale_factor: what the sum is divided by.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        eps: float,
        time_embed_dim: int | None = None,
        output_scale_factor: float = 1,
        execution: Execution | None = None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        self.norm1 = group_norm(in_channels, groups, eps, **layer)
        self.conv1 = conv(in_channels, out_channels, execution=execution, **layer)
        if time_embed_dim is not None:
            self.time_emb_proj = nnx.Linear(time_embed_dim, out_channels, **layer)
        self.norm2 = group_norm(out_channels, groups, eps, **layer)
        self.conv2 = conv(out_channels, out_channels, execution=execution, **layer)
        if in_channels != out_channels:
            self.conv_shortcut = conv(in_channels, out_channels, 1, execution=execution, **layer)
        self.output_scale_factor = output_scale_factor
        self.execution = execution

    def __call__(self, x: jax.Array, time_embedding: jax.Array | None = None) -> jax.Array:
        """`x` `[B, H, W, in_channels]`, `time_embedding` `[B, time_embed_dim]` -> `[B, H, W, out_channels]`."""
        h = self.conv1(nnx.silu(self.norm1(x)))
        if time_embedding is not None:
            h += self.time_emb_proj(nnx.silu(time_embedding))[:, None, None, :]
        h = materialised(self.execution, h)
        h = self.conv2(nnx.silu(self.norm2(h)))
        shortcut = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        return materialised(self.execution, (shortcut + h) / self.output_scale_factor)


class Downsample2D(nnx.Module):
    """Half the resolution by a strided convolution.

    Args:
      channels: C.
      pad_end_only: pad below and to the right only, as the autoencoder's encoder does.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        channels: int,
        *,
        pad_end_only: bool = False,
        execution: Execution | None = None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        padding = ((0, 1), (0, 1)) if pad_end_only else 1
        self.execution = execution
        implementation = jax.lax.conv_general_dilated if pad_end_only else convolution_of(3, execution)
        self.conv = nnx.Conv(
            channels, channels, (3, 3), strides=2, padding=padding, conv_general_dilated=implementation, **layer
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, ceil(H/2), ceil(W/2), C]`; with `pad_end_only`, `[B, floor(H/2), floor(W/2), C]`."""
        return materialised(self.execution, self.conv(x))


class Upsample2D(nnx.Module):
    """Twice the resolution by the nearest neighbour, then a convolution.

    Args:
      channels: C.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(self, channels: int, *, execution: Execution | None = None, **layer: Unpack[LayerOptions]) -> None:
        self.execution = execution
        self.conv = conv(channels, channels, execution=execution, **layer)

    def __call__(self, x: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
        """`[B, H, W, C]` -> `[B, 2 H, 2 W, C]`, or `[B, *size, C]`.

        Args:
          x: `[B, H, W, C]`.
          size: height and width to cut the doubled input to, where a downsampling had rounded up.
        """
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        if size is not None:
            x = x[:, : size[0], : size[1]]
        return materialised(self.execution, self.conv(x))
