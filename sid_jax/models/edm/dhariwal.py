"""DhariwalUNet: ADM (Dhariwal and Nichol 2021, arXiv 2105.05233) as EDM has it (Karras et al. 2022, 2206.00364)."""

import math
from typing import Unpack

import jax
from flax import nnx

from sid_jax.models.edm.config import PrecondConfig, groups_of
from sid_jax.models.edm.init import Init
from sid_jax.models.edm.layers import BlockStyle, Conv2d, PositionalEmbedding, linear
from sid_jax.models.edm.resample import BOX
from sid_jax.models.edm.unet import EncoderDecoder, one_hot
from sid_jax.models.layers.execution import Execution
from sid_jax.models.layers.options import LayerOptions
from sid_jax.models.layers.resnet import group_norm

_INIT = Init("kaiming_uniform", math.sqrt(1 / 3), math.sqrt(1 / 3))
_ZERO = Init("kaiming_uniform", 0.0)
_EPS = 1e-5


class DhariwalUNet(EncoderDecoder):
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
        noise, width = network.noise_channels, network.embedding_channels
        self.map_noise = PositionalEmbedding(noise, endpoint=False)
        if network.augment_dim:
            self.map_augment = linear(network.augment_dim, noise, _ZERO, use_bias=False, **layer)
        self.map_layer0 = linear(noise, width, _INIT, **layer)
        self.map_layer1 = linear(width, width, _INIT, **layer)
        if config.label_dim:
            init = Init("kaiming_normal", math.sqrt(config.label_dim))
            self.map_label = linear(config.label_dim, width, init, use_bias=False, **layer)
        style = BlockStyle(
            embedding_channels=width,
            eps=_EPS,
            skip_scale=1.0,
            adaptive=True,
            project_changes=False,
            taps=BOX,
            dropout=network.dropout,
            init=_INIT,
            init_qkv=_INIT,
            init_last=_ZERO,
        )
        super().__init__(config, style, execution, **layer)
        last = network.level_channels[0]
        self.out_norm = group_norm(last, groups_of(last), _EPS, **layer)
        self.out_conv = Conv2d(last, out_channels, 3, _ZERO, **layer)

    def embed(self, noise: jax.Array, class_labels: jax.Array | None, augment_labels: jax.Array | None) -> jax.Array:
        """The embedding `[B, E]` of the noise level as F is told it `[B]`, of classes, and of the augmentation."""
        e = self.map_noise(noise)
        if augment_labels is not None:
            e = e + self.map_augment(augment_labels)
        e = self.map_layer1(nnx.silu(self.map_layer0(e)))
        if self.config.label_dim:
            e = e + self.map_label(one_hot(class_labels, self.config.label_dim, len(noise)))
        return nnx.silu(e)

    def finish(self, x: jax.Array) -> jax.Array:
        """The output `[B, R, R, out_channels]`, from the decoder's."""
        return self.out_conv(nnx.silu(self.out_norm(x)))
