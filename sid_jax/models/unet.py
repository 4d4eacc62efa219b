"""UNet2DConditionModel of Stable Diffusion 1.x, 2.x and XL (Rombach et al. 2022; Podell et al. 2023)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.json_config import JsonConfig
from sid_jax.models.layers.embeddings import TimestepEmbedding, sinusoidal
from sid_jax.models.layers.execution import Execution, run, settle
from sid_jax.models.layers.resnet import Downsample2D, ResnetBlock2D, Upsample2D, conv, group_norm
from sid_jax.models.layers.transformer import Transformer2DModel

_CROSS_DOWN, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"

_CROSS_UP, _UP = "CrossAttnUpBlock2D", "UpBlock2D"


@dataclasses.dataclass(frozen=True)
class UNetConfig(JsonConfig):
    """UNet2DConditionModel of Stable Diffusion 1.x, 2.x and XL. Fields are those of its `config.json`.

    `attention_head_dim` is, as in diffusers, the *number* of heads of each level (one int: of all levels).
    """

    in_channels: int = 4
    out_channels: int = 4
    sample_size: int | None = None
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = (_CROSS_DOWN, _CROSS_DOWN, _CROSS_DOWN, _DOWN)
    up_block_types: tuple[str, ...] = (_UP, _CROSS_UP, _CROSS_UP, _CROSS_UP)
    layers_per_block: int | tuple[int, ...] = 2
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8
    cross_attention_dim: int = 1280
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    mid_block_scale_factor: float = 1
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None

    _REQUIRED: ClassVar[dict[str, tuple]] = {
        "act_fn": ("silu", "swish"),
        "center_input_sample": (False,),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "only_cross_attention": (False,),
        "downsample_padding": (1,),
        "dropout": (0, 0.0),
        "reverse_transformer_layers_per_block": (None,),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "num_attention_heads": (None,),
        "dual_cross_attention": (False,),
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
        "resnet_time_scale_shift": ("default",),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1, 1.0),
        "time_embedding_type": ("positional",),
        "time_embedding_dim": (None,),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
        "time_cond_proj_dim": (None,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "attention_type": ("default",),
        "class_embeddings_concat": (False,),
        "mid_block_only_cross_attention": (None, False),
        "cross_attention_norm": (None,),
    }
    _INERT: ClassVar[frozenset[str]] = frozenset({
        "addition_embed_type_num_heads",  # used by another embedding type
        "upcast_attention",  # attention always adds up in float32
    })  # fmt: skip

    def __post_init__(self):
        levels = len(self.block_out_channels)
        for name in ("layers_per_block", "transformer_layers_per_block", "attention_head_dim"):
            value = getattr(self, name)
            per_level = value if isinstance(value, tuple) else (value,) * levels
            object.__setattr__(self, name, per_level)
        for name in (
            "down_block_types",
            "up_block_types",
            "layers_per_block",
            "transformer_layers_per_block",
            "attention_head_dim",
        ):
            self._require(len(getattr(self, name)) == levels, name, f"block_out_channels has {levels} levels")
        self._require_positive(
            "in_channels", "out_channels", "block_out_channels", "layers_per_block", "transformer_layers_per_block",
            "attention_head_dim", "cross_attention_dim", "norm_num_groups",
        )  # fmt: skip
        for name, allowed in (("down_block_types", {_CROSS_DOWN, _DOWN}), ("up_block_types", {_CROSS_UP, _UP})):
            unknown = set(getattr(self, name)) - allowed
            self._require(not unknown, name, f"only {' and '.join(sorted(allowed))} are supported")
        for channels, heads in zip(self.block_out_channels, self.attention_head_dim, strict=True):
            self._require(channels % heads == 0, "attention_head_dim", f"{channels} channels don't split evenly")
            groups = self.norm_num_groups
            self._require(channels % groups == 0, "norm_num_groups", f"{channels} channels don't split evenly")
        self._require(self.block_out_channels[0] % 2 == 0, "block_out_channels", "the first must be even")
        self._require(self.addition_embed_type in (None, "text_time"), "addition_embed_type", "supported: 'text_time'")
        if self.addition_embed_type == "text_time":
            for name in ("addition_time_embed_dim", "projection_class_embeddings_input_dim"):
                self._require(getattr(self, name) is not None, name, "'text_time' needs a number here")
                self._require_positive(name)


class _Builder:
    """The layers of one level of the UNet, with what the configuration says of it."""

    def __init__(self, config: UNetConfig, level: int, execution: Execution | None, **layer):
        self.channels = config.block_out_channels[level]
        self.config, self.level, self.execution, self.layer = config, level, execution, layer

    def resnet(self, in_channels: int, **options) -> ResnetBlock2D:
        return ResnetBlock2D(
            in_channels,
            self.channels,
            groups=self.config.norm_num_groups,
            eps=self.config.norm_eps,
            time_embed_dim=4 * self.config.block_out_channels[0],
            execution=self.execution,
            **options,
            **self.layer,
        )

    def transformer(self) -> Transformer2DModel:
        return Transformer2DModel(
            self.channels,
            self.config.attention_head_dim[self.level],
            depth=self.config.transformer_layers_per_block[self.level],
            context_channels=self.config.cross_attention_dim,
            groups=self.config.norm_num_groups,
            linear_projection=self.config.use_linear_projection,
            execution=self.execution,
            **self.layer,
        )


class DownBlock2D(nnx.Module):
    """Residual blocks, each with a transformer where `cross_attention`, then a halving of the resolution."""

    def __init__(self, build: _Builder, in_channels: int, *, cross_attention: bool, downsample: bool):
        layers = build.config.layers_per_block[build.level]
        self.execution = build.execution
        self.resnets = nnx.List([build.resnet(in_channels if i == 0 else build.channels) for i in range(layers)])
        if cross_attention:
            self.attentions = nnx.List([build.transformer() for _ in range(layers)])
        if downsample:
            self.downsamplers = nnx.List([Downsample2D(build.channels, execution=build.execution, **build.layer)])

    def __call__(self, x: jax.Array, time_embedding: jax.Array, context: jax.Array) -> list[jax.Array]:
        """All feature maps on the way, for the skip connections; the last one is the block's output."""
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
    """Residual block, transformer, residual block, at the lowest resolution."""

    def __init__(self, build: _Builder):
        scale = build.config.mid_block_scale_factor
        self.execution = build.execution
        self.resnets = nnx.List([build.resnet(build.channels, output_scale_factor=scale) for _ in range(2)])
        self.attentions = nnx.List([build.transformer()])

    def __call__(self, x: jax.Array, time_embedding: jax.Array, context: jax.Array) -> jax.Array:
        x = run(self.execution, ResnetBlock2D.__call__, self.resnets[0], x, time_embedding)
        x = self.attentions[0](x, context)
        return run(self.execution, ResnetBlock2D.__call__, self.resnets[1], x, time_embedding)


class UpBlock2D(nnx.Module):
    """Residual blocks on the input beside a skip connection, with transformers, then a doubling of the resolution."""

    def __init__(
        self, build: _Builder, in_channels: int, skip_channels: list[int], *, cross_attention: bool, upsample: bool
    ):
        self.execution = build.execution
        inputs = [in_channels] + [build.channels] * (len(skip_channels) - 1)
        self.resnets = nnx.List([build.resnet(c + s) for c, s in zip(inputs, skip_channels, strict=True)])
        if cross_attention:
            self.attentions = nnx.List([build.transformer() for _ in skip_channels])
        if upsample:
            self.upsamplers = nnx.List([Upsample2D(build.channels, execution=build.execution, **build.layer)])

    def __call__(
        self, x: jax.Array, skips: list[jax.Array], time_embedding: jax.Array, context: jax.Array
    ) -> jax.Array:
        """Takes its skip connections off the end of `skips`; what is left there tells the size to double to."""
        for i, resnet in enumerate(self.resnets):
            x = run(self.execution, _beside, resnet, x, skips.pop(), time_embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, context)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x, size=skips[-1].shape[1:3])
        return x


def _beside(resnet: ResnetBlock2D, x: jax.Array, skip: jax.Array, time_embedding: jax.Array) -> jax.Array:
    return resnet(jnp.concatenate([x, skip], axis=-1), time_embedding)


class UNet2DConditionModel(nnx.Module):
    """Predicts the noise (or the velocity) in noisy latents, given the time and a text embedding.

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
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        execution: Execution | None = None,
        rngs: nnx.Rngs,
    ):
        layer = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        channels = config.block_out_channels
        top, last = channels[0], len(channels) - 1
        self.config, self.execution = config, execution
        self.dtype = dtype
        self.conv_in = conv(config.in_channels, top, **layer)
        self.time_embedding = TimestepEmbedding(top, 4 * top, **layer)
        if config.addition_embed_type == "text_time":
            self.add_embedding = TimestepEmbedding(config.projection_class_embeddings_input_dim, 4 * top, **layer)

        skip_channels = [top]
        self.down_blocks = nnx.List([])
        for level, kind in enumerate(config.down_block_types):
            self.down_blocks.append(
                DownBlock2D(
                    _Builder(config, level, execution, **layer),
                    channels[max(level - 1, 0)],
                    cross_attention=kind.startswith("CrossAttn"),
                    downsample=level < last,
                )
            )
            skip_channels += [channels[level]] * (config.layers_per_block[level] + (level < last))
        self.mid_block = MidBlock2D(_Builder(config, last, execution, **layer))
        self.up_blocks = nnx.List([])
        for i, kind in enumerate(config.up_block_types):
            level = last - i
            count = config.layers_per_block[level] + 1
            skips, skip_channels = skip_channels[-count:][::-1], skip_channels[:-count]
            self.up_blocks.append(
                UpBlock2D(
                    _Builder(config, level, execution, **layer),
                    channels[min(level + 1, last)],
                    skips,
                    cross_attention=kind.startswith("CrossAttn"),
                    upsample=level > 0,
                )
            )
        self.conv_norm_out = group_norm(top, config.norm_num_groups, config.norm_eps, **layer)
        self.conv_out = conv(top, config.out_channels, **layer)

    def embed_time(self, timestep: jax.Array, added_cond_kwargs: dict[str, jax.Array] | None) -> jax.Array:
        """Embedding `[B, 4 * block_out_channels[0]]` of the time; for SDXL, of the pooled text and the sizes too."""
        config = self.config
        options = {"flip_sin_to_cos": config.flip_sin_to_cos, "freq_shift": config.freq_shift}
        embedding = self.time_embedding(sinusoidal(timestep, config.block_out_channels[0], **options))
        if config.addition_embed_type is None:
            return embedding
        if added_cond_kwargs is None:
            raise ValueError("this UNet is conditioned on text_embeds and time_ids too: pass added_cond_kwargs")
        text, ids = added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"]
        numbers = sinusoidal(ids.reshape(-1), config.addition_time_embed_dim, **options).reshape(ids.shape[0], -1)
        return embedding + self.add_embedding(jnp.concatenate([text.astype(jnp.float32), numbers], axis=-1))

    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array,
        encoder_hidden_states: jax.Array,
        added_cond_kwargs: dict[str, jax.Array] | None = None,
    ) -> jax.Array:
        """The raw prediction for noisy latents, the first of what `with_bottleneck` returns for the same arguments."""
        return self.with_bottleneck(sample, timestep, encoder_hidden_states, added_cond_kwargs)[0]

    def with_bottleneck(
        self,
        sample: jax.Array,
        timestep: jax.Array,
        encoder_hidden_states: jax.Array,
        added_cond_kwargs: dict[str, jax.Array] | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The raw prediction for noisy latents, and the features that its decoder starts from.

        A program that leaves the prediction unused pays for the encoder only: XLA takes the decoder out.

        Args:
          sample: noisy latents `[B, H, W, in_channels]`.
          timestep: `[B]`, in [0, 1000).
          encoder_hidden_states: text embedding `[B, L, cross_attention_dim]`.
          added_cond_kwargs: SDXL's `text_embeds` `[B, D]` (pooled) and `time_ids` `[B, 6]`.

        Returns:
          The prediction `[B, H, W, out_channels]` and the output of the middle block `[B, h, w, C]`, at the lowest
          resolution and with the last of `block_out_channels`, both in the computation's type.
        """
        time_embedding = self.embed_time(timestep, added_cond_kwargs)
        context = encoder_hidden_states
        x = settle(self.execution, self.conv_in(sample))
        skips = [x]
        for block in self.down_blocks:
            features = block(x, time_embedding, context)
            x = features[-1]
            skips += features
        x = bottleneck = self.mid_block(x, time_embedding, context)
        for block in self.up_blocks:
            x = block(x, skips, time_embedding, context)
        return self.conv_out(nnx.silu(self.conv_norm_out(x))), bottleneck
