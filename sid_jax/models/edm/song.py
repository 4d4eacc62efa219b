"""SongUNet: DDPM++ and NCSN++ (Song et al. 2021, arXiv 2011.13456) as EDM has them (Karras et al. 2022, 2206.00364)."""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.edm.config import PrecondConfig, SongConfig, groups_of
from sid_jax.models.edm.init import Init
from sid_jax.models.edm.layers import BlockStyle, Conv2d, FourierEmbedding, PositionalEmbedding, linear
from sid_jax.models.edm.unet import EncoderDecoder, one_hot
from sid_jax.models.layers.execution import Execution
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.resnet import group_norm

_INIT = Init("xavier_uniform")
_INIT_LAST = Init("xavier_uniform", 1e-5)
_EPS = 1e-6


class SongUNet(EncoderDecoder):
    """The raw network F.

    Args:
      config: of the preconditioner, with the network's in it.
      out_channels: C of the output.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self, config: PrecondConfig, out_channels: int, *, execution: Execution | None, **layer: Unpack[LayerOptions]
    ) -> None:
        network = config.network
        assert isinstance(network, SongConfig)  # as its `model_type` says
        noise, width = network.noise_channels, network.embedding_channels
        if network.embedding_type == "fourier":
            self.map_noise: nnx.Module = FourierEmbedding(noise, rngs=layer["rngs"])
        else:
            self.map_noise = PositionalEmbedding(noise, endpoint=True)
        if config.label_dim:
            self.map_label = linear(config.label_dim, noise, _INIT, **layer)
        if network.augment_dim:
            self.map_augment = linear(network.augment_dim, noise, _INIT, use_bias=False, **layer)
        self.map_layer0 = linear(noise, width, _INIT, **layer)
        self.map_layer1 = linear(width, width, _INIT, **layer)
        style = BlockStyle(
            embedding_channels=width,
            eps=_EPS,
            skip_scale=math.sqrt(0.5),
            adaptive=False,
            project_changes=True,
            taps=network.resample_filter,
            dropout=network.dropout,
            init=_INIT,
            init_qkv=Init("xavier_uniform", math.sqrt(0.2)),
            init_last=_INIT_LAST,
        )
        super().__init__(config, style, execution, **layer)
        last = network.level_channels[0]
        self.dec[self._last("norm")] = group_norm(last, groups_of(last), _EPS, **layer)
        self.dec[self._last("conv")] = Conv2d(last, out_channels, 3, _INIT_LAST, **layer)

    def _last(self, what: str) -> str:
        side = self.config.img_resolution
        return f"{side}x{side}_aux_{what}"

    def embed(self, noise: jax.Array, class_labels: jax.Array | None, augment_labels: jax.Array | None) -> jax.Array:
        """The embedding `[B, E]` of the noise level as F is told it `[B]`, of classes, and of the augmentation."""
        e = jnp.roll(self.map_noise(noise), self.config.network.noise_channels // 2, axis=-1)  # sines first
        if self.config.label_dim:
            hot = one_hot(class_labels, self.config.label_dim, len(noise))
            e = e + self.map_label(hot * math.sqrt(self.config.label_dim))
        if augment_labels is not None:
            e = e + self.map_augment(augment_labels)
        return nnx.silu(self.map_layer1(nnx.silu(self.map_layer0(e))))

    def finish(self, x: jax.Array) -> jax.Array:
        """The output `[B, R, R, out_channels]`, from the decoder's."""
        return self.dec[self._last("conv")](nnx.silu(self.dec[self._last("norm")](x)))
