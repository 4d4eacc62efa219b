"""What SongUNet and DhariwalUNet have in common: an encoder, whose outputs a decoder reads again."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.models.edm.config import Entry, PrecondConfig
from sid_jax.models.edm.layers import BlockStyle, Conv2d, UNetBlock
from sid_jax.models.layers.execution import Execution, materialised, run
from sid_jax.models.layers.options import LayerOptions


class EncoderDecoder(nnx.Module):
    """Encoder and decoder without the first embedding and the last layers, which differ between the networks.

    Their entries are called in the order of the configuration: that of an `nnx.Dict` is alphabetical after a merge.

    Args:
      config: of the preconditioner, with the network's in it.
      style: of the blocks.
      execution: None: plain JAX on one device.
      **layer: see `LayerOptions`.
    """

    def __init__(
        self, config: PrecondConfig, style: BlockStyle, execution: Execution | None, **layer: Unpack[LayerOptions]
    ) -> None:
        self.config, self.style, self.execution = config, style, execution
        self.enc = nnx.Dict({entry.name: self._made(entry, layer) for entry in config.encoder})
        self.dec = nnx.Dict({entry.name: self._made(entry, layer) for entry in config.decoder})

    def _made(self, entry: Entry, layer: LayerOptions) -> nnx.Module:
        if entry.kind == "conv":
            return Conv2d(entry.in_channels, entry.out_channels, 3, self.style.init, **layer)
        if entry.kind == "aux_residual":
            options: dict[str, Any] = {"change": "fused_down", "taps": self.style.taps}
            return Conv2d(entry.in_channels, entry.out_channels, 3, self.style.init, **options, **layer)
        return UNetBlock(
            entry.in_channels,
            entry.out_channels,
            self.style,
            change=entry.kind if entry.kind in ("down", "up") else "",
            heads=entry.heads,
            execution=self.execution,
            **layer,
        )

    def encode(self, x: jax.Array, embedding: jax.Array, dropout_key: jax.Array | None) -> list[jax.Array]:
        """The encoder's outputs that the decoder reads; the last one is the encoder's output.

        Args:
          x: `[B, R, R, img_channels]`.
          embedding: `[B, E]`.
          dropout_key: None: no dropout.
        """
        skips: list[jax.Array] = []
        aux = x
        for i, entry in enumerate(self.config.encoder):
            module = self.enc[entry.name]
            if entry.kind == "conv":
                skips.append(materialised(self.execution, module(x)))
            elif entry.kind == "aux_residual":
                aux = skips[-1] = materialised(self.execution, (skips[-1] + module(aux)) * float(np.sqrt(0.5)))
            else:
                key = _key(dropout_key, i)
                skips.append(run(self.execution, UNetBlock.__call__, module, skips[-1], embedding, key))
        return skips

    def decode(self, skips: list[jax.Array], embedding: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        """The decoder's output `[B, R, R, C]`.

        Args:
          skips: what `encode` returned.
          embedding: `[B, E]`.
          dropout_key: None: no dropout.
        """
        rest = list(skips)
        x = rest[-1]
        for i, entry in enumerate(self.config.decoder, len(self.config.encoder)):
            module, key = self.dec[entry.name], _key(dropout_key, i)
            if entry.kind == "block":
                x = run(self.execution, _beside, module, x, rest.pop(), embedding, key)
            else:
                x = run(self.execution, UNetBlock.__call__, module, x, embedding, key)
        return x


def _key(dropout_key: jax.Array | None, entry: int) -> jax.Array | None:
    return None if dropout_key is None else jax.random.fold_in(dropout_key, entry)


def _beside(
    block: UNetBlock, x: jax.Array, skip: jax.Array, embedding: jax.Array, dropout_key: jax.Array | None
) -> jax.Array:
    return block(jnp.concatenate([x, skip], axis=-1), embedding, dropout_key)


def one_hot(class_labels: jax.Array | None, label_dim: int, batch: int) -> jax.Array:
    """`[B, label_dim]` in float32; zeros where a label is -1, and where there are none."""
    labels = jnp.full((batch,), -1) if class_labels is None else class_labels
    return jax.nn.one_hot(labels, label_dim, dtype=jnp.float32)
