"""AutoencoderKL of Stable Diffusion: images to latents and back (Rombach et al. 2022)."""

import dataclasses
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.json_config import JsonConfig
from sid_jax.models.layers.execution import Execution
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.resnet import Downsample2D, ResnetBlock2D, Upsample2D, conv, group_norm
from sid_jax.models.layers.transformer import MultiHeadAttention


@dataclasses.dataclass(frozen=True)
class AutoencoderKLConfig(JsonConfig):
    """AutoencoderKL of Stable Diffusion 1.x, 2.x and XL. Fields are those of its `config.json`."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    sample_size: int | tuple[int, ...] = 32
    block_out_channels: tuple[int, ...] = (64,)
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    layers_per_block: int = 1
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "act_fn": ("silu", "swish"),
        "shift_factor": (None,),
        "latents_mean": (None,),
        "latents_std": (None,),
        "use_quant_conv": (True,),
        "use_post_quant_conv": (True,),
        "mid_block_add_attention": (True,),
    }

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            self._require(set(getattr(self, name)) == {block}, name, f"only {block} is supported")
            self._require(len(getattr(self, name)) == levels, name, f"block_out_channels has {levels} levels")
        self._require_positive(
            "in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block",
            "norm_num_groups", "scaling_factor",
        )  # fmt: skip
        for channels in self.block_out_channels:
            groups = self.norm_num_groups
            self._require(channels % groups == 0, "norm_num_groups", f"{channels} channels don't split evenly")

    @property
    def downscale(self) -> int:
        """Pixels per latent position, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def num_layers(self) -> int:
        """Residual blocks of the encoder, without those of the middle."""
        return self.layers_per_block * len(self.block_out_channels)


_EPS = 1e-6
# An image of 1024 px has 16,384 positions, and its logits would take a gigabyte.
_EXECUTION = Execution("chunked", long_attention=4096, platform="any")


class AttentionBlock(MultiHeadAttention):
    """Single-head self-attention over the positions of a feature map, added to the input.

    Args:
      channels: C of the feature map.
      groups: of the norm.
      **layer: see `LayerOptions`.
    """

    def __init__(self, channels: int, groups: int, **layer: Unpack[LayerOptions]) -> None:
        super().__init__(channels, 1, qkv_bias=True, execution=_EXECUTION, **layer)
        self.group_norm = group_norm(channels, groups, _EPS, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, channels]` -> the same shape."""
        h = self.group_norm(x).reshape(x.shape[0], -1, x.shape[-1])
        return x + self.attention(h, h).reshape(x.shape)


class MidBlock2D(nnx.Module):
    """Residual block, attention, residual block, at the lowest resolution.

    Args:
      channels: C of the feature map.
      groups: of the norms.
      **layer: see `LayerOptions`.
    """

    def __init__(self, channels: int, groups: int, **layer: Unpack[LayerOptions]) -> None:
        self.resnets = nnx.List([ResnetBlock2D(channels, channels, groups=groups, eps=_EPS, **layer) for _ in range(2)])
        self.attentions = nnx.List([AttentionBlock(channels, groups, **layer)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, C]` -> `[B, h, w, C]`."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Level(nnx.Module):
    """Residual blocks at one resolution, then a change of it.

    Args:
      in_channels: C of the input.
      out_channels: C of the output.
      blocks: number of residual blocks.
      groups: of the norms.
      sampler: "down" halves the resolution, "up" doubles it; None keeps it.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        blocks: int,
        groups: int,
        sampler: str | None,
        **layer: Unpack[LayerOptions],
    ) -> None:
        self.resnets = nnx.List(
            [
                ResnetBlock2D(in_channels if i == 0 else out_channels, out_channels, groups=groups, eps=_EPS, **layer)
                for i in range(blocks)
            ]
        )
        if sampler == "down":
            self.downsamplers = nnx.List([Downsample2D(out_channels, pad_end_only=True, **layer)])
        elif sampler == "up":
            self.upsamplers = nnx.List([Upsample2D(out_channels, **layer)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, in_channels]` -> `[B, H', W', out_channels]`, with H' = H / 2, 2 H or H."""
        for resnet in self.resnets:
            x = resnet(x)
        for sampler in getattr(self, "downsamplers", None) or getattr(self, "upsamplers", None) or ():
            x = sampler(x)
        return x


class Encoder(nnx.Module):
    """Images to the mean and log variance of their latents (before `quant_conv`).

    Args:
      config: of the autoencoder.
      **layer: see `LayerOptions`.
    """

    def __init__(self, config: AutoencoderKLConfig, **layer: Unpack[LayerOptions]) -> None:
        channels, groups = config.block_out_channels, config.norm_num_groups
        last = len(channels) - 1
        self.conv_in = conv(config.in_channels, channels[0], **layer)
        self.down_blocks = nnx.List(
            [
                Level(
                    channels[max(level - 1, 0)],
                    channels[level],
                    blocks=config.layers_per_block,
                    groups=groups,
                    sampler="down" if level < last else None,
                    **layer,
                )
                for level in range(len(channels))
            ]
        )
        self.mid_block = MidBlock2D(channels[-1], groups, **layer)
        self.conv_norm_out = group_norm(channels[-1], groups, _EPS, **layer)
        self.conv_out = conv(channels[-1], 2 * config.latent_channels, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, in_channels]` -> `[B, H / f, W / f, 2 latent_channels]` with f = `config.downscale`."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latents (after `post_quant_conv`) to images.

    Args:
      config: of the autoencoder.
      **layer: see `LayerOptions`.
    """

    def __init__(self, config: AutoencoderKLConfig, **layer: Unpack[LayerOptions]) -> None:
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        last = len(channels) - 1
        self.conv_in = conv(config.latent_channels, channels[0], **layer)
        self.mid_block = MidBlock2D(channels[0], groups, **layer)
        self.up_blocks = nnx.List(
            [
                Level(
                    channels[max(i - 1, 0)],
                    channels[i],
                    blocks=config.layers_per_block + 1,
                    groups=groups,
                    sampler="up" if i < last else None,
                    **layer,
                )
                for i in range(len(channels))
            ]
        )
        self.conv_norm_out = group_norm(channels[-1], groups, _EPS, **layer)
        self.conv_out = conv(channels[-1], config.out_channels, **layer)

    def __call__(self, z: jax.Array) -> jax.Array:
        """`[B, h, w, latent_channels]` -> `[B, f h, f w, out_channels]` with f = `config.downscale`."""
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)))


class AutoencoderKL(nnx.Module):
    """Autoencoder whose latents are Gaussian, with a Kullback-Leibler penalty to the standard normal.

    The latents that the diffusion model sees are these times `config.scaling_factor`.

    Args:
      config: the network's shape.
      dtype: type of the computation; None: that of the parameters and inputs.
      param_dtype: type that parameters are stored in.
      rngs: for initial parameters.
    """

    def __init__(
        self,
        config: AutoencoderKLConfig,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        layer: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        latent = config.latent_channels
        self.config = config
        self.encoder = Encoder(config, **layer)
        self.decoder = Decoder(config, **layer)
        self.quant_conv = conv(2 * latent, 2 * latent, 1, **layer)
        self.post_quant_conv = conv(latent, latent, 1, **layer)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The law of the latents of images.

        Args:
          images: `[B, H, W, in_channels]` in [-1, 1], H and W multiples of f = `config.downscale`.

        Returns:
          Mean and log variance, each `[B, H / f, W / f, latent_channels]`; the log variance is kept in [-30, 20].
        """
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(images)), 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def decode(self, latents: jax.Array) -> jax.Array:
        """The images that latents stand for.

        Args:
          latents: `[B, h, w, latent_channels]`, not scaled.

        Returns:
          `[B, f h, f w, out_channels]` with f = `config.downscale`, in [-1, 1] or a little beyond.
        """
        return self.decoder(self.post_quant_conv(latents))
