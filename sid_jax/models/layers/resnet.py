"""Residual convolution blocks and changes of resolution, shared by the UNet and the autoencoder."""

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.layers.execution import Execution, settle


def conv(in_channels: int, out_channels: int, size: int = 3, *, strides: int = 1, **layer) -> nnx.Conv:
    """A `size` x `size` convolution padded as PyTorch pads it: by `size // 2` on every side."""
    if size == 1:
        layer["conv_general_dilated"] = _pointwise
    return nnx.Conv(in_channels, out_channels, (size, size), strides=strides, padding=size // 2, **layer)


def _pointwise(x: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
    """A 1x1 convolution as the product of matrices that it is; compilers make less of it as a convolution."""
    return jax.lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def group_norm(channels: int, groups: int, eps: float, **layer) -> nnx.GroupNorm:
    """Group normalisation with float32 statistics.

    The variance takes two passes where the input is float32, so that large means are exact, and one pass over half
    precision, which has lost more digits already than E[x^2] - E[x]^2 loses in float32.
    """
    exact = layer.get("dtype") in (None, jnp.float32)
    return nnx.GroupNorm(channels, num_groups=groups, epsilon=eps, use_fast_variance=not exact, **layer)


class ResnetBlock2D(nnx.Module):
    """norm, silu, conv, plus the time embedding, norm, silu, conv, plus the (projected) input.

    `time_embed_dim=None` makes the autoencoder's block, which knows no time.
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
        **layer,
    ):
        self.norm1 = group_norm(in_channels, groups, eps, **layer)
        self.conv1 = conv(in_channels, out_channels, **layer)
        if time_embed_dim is not None:
            self.time_emb_proj = nnx.Linear(time_embed_dim, out_channels, **layer)
        self.norm2 = group_norm(out_channels, groups, eps, **layer)
        self.conv2 = conv(out_channels, out_channels, **layer)
        if in_channels != out_channels:
            self.conv_shortcut = conv(in_channels, out_channels, 1, **layer)
        self.output_scale_factor = output_scale_factor
        self.execution = execution

    def __call__(self, x: jax.Array, time_embedding: jax.Array | None = None) -> jax.Array:
        """`x` `[B, H, W, in_channels]`, `time_embedding` `[B, time_embed_dim]` -> `[B, H, W, out_channels]`."""
        h = self.conv1(nnx.silu(self.norm1(x)))
        if time_embedding is not None:
            h += self.time_emb_proj(nnx.silu(time_embedding))[:, None, None, :]
        h = settle(self.execution, h)
        h = self.conv2(nnx.silu(self.norm2(h)))
        shortcut = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        return settle(self.execution, (shortcut + h) / self.output_scale_factor)


class Downsample2D(nnx.Module):
    """Half the resolution by a strided convolution: `[B, H, W, C]` -> `[B, ceil(H/2), ceil(W/2), C]`.

    `pad_end_only` pads below and to the right only, as the autoencoder's encoder does (`[B, H/2, W/2, C]`).
    """

    def __init__(self, channels: int, *, pad_end_only: bool = False, execution: Execution | None = None, **layer):
        padding = ((0, 1), (0, 1)) if pad_end_only else 1
        self.execution = execution
        self.conv = nnx.Conv(channels, channels, (3, 3), strides=2, padding=padding, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        return settle(self.execution, self.conv(x))


class Upsample2D(nnx.Module):
    """Nearest-neighbour doubling, cut to `size` where a downsampling had rounded up, then a convolution."""

    def __init__(self, channels: int, *, execution: Execution | None = None, **layer):
        self.execution = execution
        self.conv = conv(channels, channels, **layer)

    def __call__(self, x: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
        """`x` `[B, H, W, C]`, `size` (height, width) at most twice that -> `[B, *size, C]`."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        if size is not None:
            x = x[:, : size[0], : size[1]]
        return settle(self.execution, self.conv(x))
