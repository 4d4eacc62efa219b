"""UNet2DConditionModel of Stable Diffusion 1.x, 2.x and XL (Rombach et al. 2022; Podell et al. 2023)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.layers.embeddings import TimestepEmbedding, sinusoidal
from sid_jax.models.layers.execution import Execution, materialised
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.resnet import conv, group_norm
from sid_jax.models.unet.blocks import DownBlock2D, LayerBuilder, MidBlock2D, UpBlock2D
from sid_jax.models.unet.config import UNetConfig


class UNet2DConditionModel(nnx.Module):
    """Predicts the noise (or the velocity) in noisy latents, given the time and a text embedding.

    It is a `DenoiserModule`. Its features are the output of the middle block, which the decoder starts from. It has no
    dropout, so it ignores `dropout_key`.

    Args:
      config: the network's shape.
      dtype: type of the computation; None: that of the parameters and inputs.
      param_dtype: type that parameters are stored in.
      execution: how it is computed; None: by plain JAX on one device.
      rngs: for initial parameters.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        execution: Execution | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        layer: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        channels, levels = config.block_out_channels, config.levels
        top, last = channels[0], len(channels) - 1
        self.config, self.execution = config, execution
        self.dtype = dtype
        self.conv_in = conv(config.in_channels, top, execution=execution, **layer)
        self.time_embedding = TimestepEmbedding(top, 4 * top, **layer)
        if config.added_embedding is not None:
            self.add_embedding = TimestepEmbedding(config.added_embedding.width, 4 * top, **layer)

        skip_channels = [top]
        self.down_blocks: nnx.List[DownBlock2D] = nnx.List([])
        for level, kind in enumerate(config.down_block_types):
            self.down_blocks.append(
                DownBlock2D(
                    LayerBuilder(config, levels[level], execution, **layer),
                    channels[max(level - 1, 0)],
                    cross_attention=kind.startswith("CrossAttn"),
                    downsample=level < last,
                )
            )
            skip_channels += [channels[level]] * (levels[level].resnets + (level < last))
        self.mid_block = MidBlock2D(LayerBuilder(config, levels[last], execution, **layer))
        self.up_blocks: nnx.List[UpBlock2D] = nnx.List([])
        for i, kind in enumerate(config.up_block_types):
            level = last - i
            count = levels[level].resnets + 1
            skips, skip_channels = skip_channels[-count:][::-1], skip_channels[:-count]
            self.up_blocks.append(
                UpBlock2D(
                    LayerBuilder(config, levels[level], execution, **layer),
                    channels[min(level + 1, last)],
                    skips,
                    cross_attention=kind.startswith("CrossAttn"),
                    upsample=level > 0,
                )
            )
        self.conv_norm_out = group_norm(top, config.norm_num_groups, config.norm_eps, **layer)
        self.conv_out = conv(top, config.out_channels, execution=execution, **layer)

    def embed_time(self, t: jax.Array, added_cond_kwargs: dict[str, jax.Array] | None) -> jax.Array:
        """The embedding of the time, and for SDXL of the pooled text and the image's sizes too.

        Args:
          t: `[B]`, in [0, 1000).
          added_cond_kwargs: SDXL's `text_embeds` `[B, D]` (pooled) and `time_ids` `[B, 6]`.

        Returns:
          `[B, 4 * block_out_channels[0]]`.

        Raises:
          ValueError: `added_cond_kwargs` are missing.
        """
        added = self.config.added_embedding
        embedding = self.time_embedding(self._sinusoidal(t, self.config.block_out_channels[0]))
        if added is None:
            return embedding
        if added_cond_kwargs is None:
            raise ValueError("this UNet is conditioned on text_embeds and time_ids too: pass added_cond_kwargs")
        text, ids = added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"]
        numbers = self._sinusoidal(ids.reshape(-1), added.number_width).reshape(ids.shape[0], -1)
        return embedding + self.add_embedding(jnp.concatenate([text.astype(jnp.float32), numbers], axis=-1))

    def _sinusoidal(self, numbers: jax.Array, width: int) -> jax.Array:
        config = self.config
        return sinusoidal(numbers, width, flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift)

    def __call__(self, x: jax.Array, t: jax.Array, *, dropout_key: jax.Array | None = None, **cond: Any) -> jax.Array:
        """The raw prediction for noisy latents: the first of what `with_features` returns for the same arguments."""
        return self.with_features(x, t, dropout_key=dropout_key, **cond)[0]

    def features(self, x: jax.Array, t: jax.Array, *, dropout_key: jax.Array | None = None, **cond: Any) -> jax.Array:
        """The output of the middle block: the second of what `with_features` returns for the same arguments."""
        return self.with_features(x, t, dropout_key=dropout_key, **cond)[1]

    def with_features(
        self,
        x: jax.Array,
        t: jax.Array,
        *,
        encoder_hidden_states: jax.Array,
        added_cond_kwargs: dict[str, jax.Array] | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The raw prediction for noisy latents, and the output of the middle block.

        A program that leaves the prediction unused pays for the encoder only: XLA takes the decoder out.

        Args:
          x: noisy latents `[B, H, W, in_channels]`.
          t: times `[B]`, in [0, 1000).
          encoder_hidden_states: text embedding `[B, L, cross_attention_dim]`.
          added_cond_kwargs: SDXL's `text_embeds` `[B, D]` (pooled) and `time_ids` `[B, 6]`.
          dropout_key: ignored.

        Returns:
          The prediction `[B, H, W, out_channels]` and the output of the middle block `[B, h, w, C]`, at the lowest
          resolution and with the last of `block_out_channels`, both in the computation's type.
        """
        time_embedding = self.embed_time(t, added_cond_kwargs)
        context = encoder_hidden_states
        x = materialised(self.execution, self.conv_in(x))
        skips = [x]
        for block in self.down_blocks:
            maps = block(x, time_embedding, context)
            x = maps[-1]
            skips += maps
        x = features = self.mid_block(x, time_embedding, context)
        for up_block in self.up_blocks:
            x = up_block(x, skips, time_embedding, context)
        return self.conv_out(nnx.silu(self.conv_norm_out(x))), features

    def logits(self, features: jax.Array) -> jax.Array:
        """The channel mean of features `[B, h, w, C]`: float32 `[B, h, w]`, not clipped."""
        return jnp.mean(features.astype(jnp.float32), axis=-1)
