"""The blocks of a UNet: one for each level on the way down, one in the middle, one for each level on the way up."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.layers.execution import Execution, run
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from sid_jax.models.layers.transformer import Transformer2DModel
from sid_jax.models.unet.config import UNetConfig, UNetLevel


class LayerBuilder:
    """Makes the layers of one level from what the configuration says of it.

    Args:
      config: of the UNet.
      level: the one of `config.levels`.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self, config: UNetConfig, level: UNetLevel, execution: Execution | None, **layer: Unpack[LayerOptions]
    ) -> None:
        self.config, self.level, self.execution, self.layer = config, level, execution, layer

    def resnet(self, in_channels: int, *, output_scale_factor: float = 1) -> ResnetBlock2D:
        """A residual block `[B, H, W, in_channels]` -> `[B, H, W, C]`, C being the level's channels."""
        return ResnetBlock2D(
            in_channels,
            self.level.channels,
            groups=self.config.norm_num_groups,
            eps=self.config.norm_eps,
            time_embed_dim=4 * self.config.block_out_channels[0],
            output_scale_factor=output_scale_factor,
            execution=self.execution,
            **self.layer,
        )

    def transformer(self) -> Transformer2DModel:
        """A transformer `[B, H, W, C]` -> `[B, H, W, C]`."""
        return Transformer2DModel(
            self.level.channels,
            self.level.heads,
            depth=self.level.depth,
            context_channels=self.config.cross_attention_dim,
            groups=self.config.norm_num_groups,
            linear_projection=self.config.use_linear_projection,
            execution=self.execution,
            **self.layer,
        )


class DownBlock2D(nnx.Module):
    """Residual blocks, then a halving of the resolution.

    Args:
      build: makes the level's layers.
      in_channels: of the block's input.
      cross_attention: whether each residual block has a transformer after it.
      downsample: whether the resolution is halved.
    """

    def __init__(self, build: LayerBuilder, in_channels: int, *, cross_attention: bool, downsample: bool) -> None:
        channels, count = build.level.channels, build.level.resnets
        self.execution = build.execution
        self.resnets = nnx.List([build.resnet(in_channels if i == 0 else channels) for i in range(count)])
        if cross_attention:
            self.attentions = nnx.List([build.transformer() for _ in range(count)])
        if downsample:
            self.downsamplers = nnx.List([Downsample2D(channels, execution=build.execution, **build.layer)])

    def __call__(self, x: jax.Array, time_embedding: jax.Array, context: jax.Array) -> list[jax.Array]:
        """All feature maps on the way, for the skip connections; the last one is the block's output.

        Args:
          x: `[B, H, W, in_channels]`.
          time_embedding: `[B, D]`.
          context: `[B, L, cross_attention_dim]`.

        Returns:
          `[B, H, W, C]` of each residual block, and the halved one, `[B, ceil(H/2), ceil(W/2), C]`.
        """
        features = []
        for i, resnet in enumerate(self.resnets):
            x = run(self.execution, ResnetBlock2D.__call__, resnet, x, time_embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
            features.append(x)
        if hasattr(self, "downsamplers"):
            features.append(self.downsamplers[0](x))
        return features


class MidBlock2D(nnx.Module):
    """Residual block, transformer, residual block, at the lowest resolution.

    Args:
      build: makes the level's layers.
    """

    def __init__(self, build: LayerBuilder) -> None:
        channels, scale = build.level.channels, build.config.mid_block_scale_factor
        self.execution = build.execution
        self.resnets = nnx.List([build.resnet(channels, output_scale_factor=scale) for _ in range(2)])
        self.attentions = nnx.List([build.transformer()])

    def __call__(self, x: jax.Array, time_embedding: jax.Array, context: jax.Array) -> jax.Array:
        """`x` `[B, h, w, C]`, `time_embedding` `[B, D]`, `context` `[B, L, cross_attention_dim]` -> `[B, h, w, C]`."""
        x = run(self.execution, ResnetBlock2D.__call__, self.resnets[0], x, time_embedding)
        x = self.attentions[0](x, context)
        return run(self.execution, ResnetBlock2D.__call__, self.resnets[1], x, time_embedding)


class UpBlock2D(nnx.Module):
    """Residual blocks on the input beside a skip connection, then a doubling of the resolution.

    Args:
      build: makes the level's layers.
      in_channels: of the block's input.
      skip_channels: of the skip connections, in the order in which they are read.
      cross_attention: whether each residual block has a transformer after it.
      upsample: whether the resolution is doubled.
    """

    def __init__(
        self, build: LayerBuilder, in_channels: int, skip_channels: list[int], *, cross_attention: bool, upsample: bool
    ) -> None:
        channels = build.level.channels
        self.execution = build.execution
        inputs = [in_channels] + [channels] * (len(skip_channels) - 1)
        self.resnets = nnx.List([build.resnet(c + s) for c, s in zip(inputs, skip_channels, strict=True)])
        if cross_attention:
            self.attentions = nnx.List([build.transformer() for _ in skip_channels])
        if upsample:
            self.upsamplers = nnx.List([Upsample2D(channels, execution=build.execution, **build.layer)])

    def __call__(
        self, x: jax.Array, skips: list[jax.Array], time_embedding: jax.Array, context: jax.Array
    ) -> jax.Array:
        """Takes its skip connections off the end of `skips`. The next one there has the resolution to double to.

        Args:
          x: `[B, h, w, in_channels]`.
          skips: `[B, h, w, skip_channels]` at the end, and those of higher resolutions before.
          time_embedding: `[B, D]`.
          context: `[B, L, cross_attention_dim]`.

        Returns:
          `[B, H, W, C]`, doubled if the block doubles.
        """
        for i, resnet in enumerate(self.resnets):
            x = run(self.execution, _beside, resnet, x, skips.pop(), time_embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
        if hasattr(self, "upsamplers"):
            _, height, width, _ = skips[-1].shape
            x = self.upsamplers[0](x, size=(height, width))
        return x


def _beside(resnet: ResnetBlock2D, x: jax.Array, skip: jax.Array, time_embedding: jax.Array) -> jax.Array:
    return resnet(jnp.concatenate([x, skip], axis=-1), time_embedding)
