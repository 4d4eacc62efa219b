"""DINOv2 (Oquab et al. 2023): transformers' Dinov2Model, whose class token is the feature of FD-DINOv2.

The attributes carry the names of published files, facebook/dinov2-large for one.
"""

import dataclasses
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.json_config import TransformerConfig
from sid_jax.models.layers.attention import attend
from sid_jax.models.layers.bicubic import torch_bicubic
from sid_jax.models.layers.options import LayerOptions

_OFFSET = 0.1
"""What torch.hub's code adds to the number of patches before it divides by that of the positions."""


@dataclasses.dataclass(frozen=True)
class Dinov2Config(TransformerConfig):
    """Dinov2Model. Fields are those of transformers' `config.json`."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: int = 4
    layer_norm_eps: float = 1e-6
    image_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    qkv_bias: bool = True
    use_mask_token: bool = True

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_act": ("gelu",),
        "model_type": ("dinov2",),
        "use_swiglu_ffn": (False,),  # as the largest one has it
    }
    _INERT: ClassVar[frozenset[str]] = frozenset({
        "apply_layernorm", "attention_probs_dropout_prob", "drop_path_rate", "hidden_dropout_prob", "initializer_range",
        "layerscale_value", "out_features", "out_indices", "reshape_hidden_states", "stage_names",
    })  # fmt: skip

    def __post_init__(self) -> None:
        self._require_positive(
            "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "image_size", "patch_size",
            "num_channels",
        )  # fmt: skip
        self._require(self.image_size >= self.patch_size, "image_size", "it is smaller than a patch")
        self._require(self.side <= 1000, "image_size", "more than 1000 patches along a side")
        self._require_layers()

    @property
    def side(self) -> int:
        """Positions along a side, which the network was trained with."""
        return self.image_size // self.patch_size


class PatchEmbeddings(nnx.Module):
    """Patches to vectors."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        patch = (config.patch_size, config.patch_size)
        self.projection = nnx.Conv(
            config.num_channels, config.hidden_size, patch, strides=patch, padding="VALID", **layer
        )

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, h, w, D]`."""
        return self.projection(pixels)


class Embeddings(nnx.Module):
    """A class token before the patches of an image, and the embeddings of their positions."""

    def __init__(self, config: Dinov2Config, hub_positions: bool, **layer: Unpack[LayerOptions]) -> None:
        width, dtype = config.hidden_size, layer.get("param_dtype", jnp.float32)
        self.side, self.hub_positions = config.side, hub_positions
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width), dtype))
        if config.use_mask_token:
            self.mask_token = nnx.Param(jnp.zeros((1, width), dtype))  # in files; only training needs it
        self.patch_embeddings = PatchEmbeddings(config, **layer)
        draw = nnx.initializers.normal(0.02)
        self.position_embeddings = nnx.Param(draw(layer["rngs"].params(), (1, 1 + self.side**2, width), dtype))

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, 1 + patches, D]`."""
        patches = self.patch_embeddings(pixels)
        batch, height, width, channels = patches.shape
        first, positions = self.position_embeddings[...][:, :1], self.positions(height, width)
        token = self.cls_token[...] + first
        patches = (patches + positions).reshape(batch, height * width, channels)
        return jnp.concatenate([jnp.broadcast_to(token, (batch, 1, channels)), patches], axis=1)

    def positions(self, height: int, width: int) -> jax.Array:
        """The embeddings of so many patches, `[1, height, width, D]`."""
        side = self.side
        grid = self.position_embeddings[...][:, 1:].reshape(1, side, side, -1)
        if height == width == side:
            return grid
        rows, columns = (
            torch_bicubic(side, count, side / (count + _OFFSET) if self.hub_positions else None)
            for count in (height, width)
        )
        return jnp.einsum("iy,jx,byxd->bijd", rows, columns, grid)


class SelfAttention(nnx.Module):
    """Queries, keys and values, and their attention."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        width, bias = config.hidden_size, config.qkv_bias
        self.query = nnx.Linear(width, width, use_bias=bias, **layer)
        self.key = nnx.Linear(width, width, use_bias=bias, **layer)
        self.value = nnx.Linear(width, width, use_bias=bias, **layer)
        self.heads = config.num_attention_heads

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        q, k, v = (f(x).reshape(*x.shape[:2], self.heads, -1) for f in (self.query, self.key, self.value))
        return attend(q, k, v).reshape(x.shape)


class SelfOutput(nnx.Module):
    """What follows the attention."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        self.dense = nnx.Linear(config.hidden_size, config.hidden_size, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        return self.dense(x)


class Attention(nnx.Module):
    """Both."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        self.attention = SelfAttention(config, **layer)
        self.output = SelfOutput(config, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        return self.output(self.attention(x))


class LayerScale(nnx.Module):
    """A factor for each channel."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        self.lambda1 = nnx.Param(jnp.ones(config.hidden_size, layer.get("param_dtype", jnp.float32)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        return x * self.lambda1[...]


class MLP(nnx.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        self.fc1 = nnx.Linear(config.hidden_size, config.hidden_size * config.mlp_ratio, **layer)
        self.fc2 = nnx.Linear(config.hidden_size * config.mlp_ratio, config.hidden_size, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class Layer(nnx.Module):
    """Attention and MLP, each on a layer norm, scaled, and added to its input."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        width, eps = config.hidden_size, config.layer_norm_eps
        self.norm1 = nnx.LayerNorm(width, epsilon=eps, **layer)
        self.attention = Attention(config, **layer)
        self.layer_scale1 = LayerScale(config, **layer)
        self.norm2 = nnx.LayerNorm(width, epsilon=eps, **layer)
        self.mlp = MLP(config, **layer)
        self.layer_scale2 = LayerScale(config, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        x += self.layer_scale1(self.attention(self.norm1(x)))
        x += self.layer_scale2(self.mlp(self.norm2(x)))
        return x


class Encoder(nnx.Module):
    """The stack of layers."""

    def __init__(self, config: Dinov2Config, **layer: Unpack[LayerOptions]) -> None:
        self.layer = nnx.List([Layer(config, **layer) for _ in range(config.num_hidden_layers)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        for module in self.layer:
            x = module(x)
        return x


class Dinov2Model(nnx.Module):
    """An image to its class token.

    Args:
      config: the network's shape.
      hub_positions: how embeddings of positions are resized for an image of another size than the network was trained
        with. True: as torch.hub's code does it, by a factor of (patches + 0.1) / positions, which FD-DINOv2 is of.
        False: to the number of patches, as transformers does it. Features differ between the two.
      dtype: type of the computation; None: that of the parameters.
      param_dtype: type that parameters are stored in.
      rngs: for initial parameters.
    """

    def __init__(
        self,
        config: Dinov2Config,
        *,
        hub_positions: bool = True,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        layer = LayerOptions(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        self.embeddings = Embeddings(config, hub_positions, **layer)
        self.encoder = Encoder(config, **layer)
        self.layernorm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **layer)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Normalised pixels `[B, H, W, C]`, H and W multiples of a patch -> `[B, D]`."""
        return self.read(self.encoder(self.embeddings(pixels)))

    def read(self, state: jax.Array) -> jax.Array:
        """What the encoder gives, `[B, 1 + patches, D]` -> `[B, D]`."""
        return self.layernorm(state)[:, 0]
