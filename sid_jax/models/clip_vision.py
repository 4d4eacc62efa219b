"""CLIP's tower of images, and both towers as one (Radford et al. 2021): transformers' CLIPModel."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.clip import CLIPEncoder, CLIPTextConfig, CLIPTextOutput, CLIPTextTransformer, TowerConfig
from sid_jax.models.json_config import JsonConfig
from sid_jax.models.layers.options import LayerOptions

_MOST_PATCHES = 100_000


@dataclasses.dataclass(frozen=True)
class CLIPVisionConfig(TowerConfig):
    """The tower of images. Fields are those of `vision_config` in transformers' `config.json`."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {"model_type": ("clip_vision_model",)}
    _INERT: ClassVar[frozenset[str]] = frozenset({
        # Generic fields of a tower, and the width of a projection, which is that of the whole model.
        "attention_dropout", "bos_token_id", "dropout", "eos_token_id", "initializer_factor", "initializer_range",
        "pad_token_id", "projection_dim",
    })  # fmt: skip

    def __post_init__(self) -> None:
        self._require_positive(
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels",
            "image_size", "patch_size",
        )  # fmt: skip
        self._require(self.image_size >= self.patch_size, "image_size", "it is smaller than a patch")
        self._require(self.patches <= _MOST_PATCHES, "image_size", f"more than {_MOST_PATCHES} patches")
        self._require_layers()

    @property
    def patches(self) -> int:
        """Of an image."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class CLIPConfig(JsonConfig):
    """Both towers, and the width of what they have in common. Fields are those of CLIPModel's `config.json`."""

    text_config: CLIPTextConfig = dataclasses.field(default_factory=CLIPTextConfig)
    vision_config: CLIPVisionConfig = dataclasses.field(default_factory=CLIPVisionConfig)
    projection_dim: int = 512

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {"model_type": ("clip",)}
    _INERT: ClassVar[frozenset[str]] = frozenset({
        "bos_token_id", "eos_token_id", "initializer_factor", "initializer_range", "logit_scale_init_value",
        "pad_token_id",
    })  # fmt: skip

    def __post_init__(self) -> None:
        self._require_positive("projection_dim")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that a JSON object describes.

        Old files have a tower twice, the second time as `text_config_dict` and `vision_config_dict`. As in
        transformers, that one wins, with the defaults of what it leaves out.

        Raises:
          ValueError: see `JsonConfig.from_dict`.
        """
        values = dict(values)
        for name, tower in (("text_config", CLIPTextConfig), ("vision_config", CLIPVisionConfig)):
            first, second = values.pop(name, None), values.pop(f"{name}_dict", None)
            for each in (first, second):
                if each is not None and not isinstance(each, dict):
                    raise ValueError(f"{cls.__name__}: field {name!r} must be an object, found {each!r:.200}")
            if second is not None:
                defaults = {field.name: field.default for field in dataclasses.fields(tower)}
                values[name] = {**(first or {}), **defaults, **second}
            elif first is not None:
                values[name] = first
        return super().from_dict(values)

    @property
    def num_layers(self) -> int:
        """Attention layers of both towers."""
        return self.text_config.num_layers + self.vision_config.num_layers


class CLIPVisionEmbeddings(nnx.Module):
    """An image's patches behind a class embedding, each with that of its position."""

    def __init__(self, config: CLIPVisionConfig, **layer: Unpack[LayerOptions]) -> None:
        width, patch = config.hidden_size, (config.patch_size, config.patch_size)
        draw = nnx.initializers.normal(width**-0.5)
        self.class_embedding = nnx.Param(draw(layer["rngs"].params(), (width,), layer.get("param_dtype", jnp.float32)))
        self.patch_embedding = nnx.Conv(
            config.num_channels, width, patch, strides=patch, padding="VALID", use_bias=False, **layer
        )
        self.position_embedding = nnx.Embed(1 + config.patches, width, **layer)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, 1 + patches, D]`."""
        patches = self.patch_embedding(pixels)
        patches = patches.reshape(patches.shape[0], -1, patches.shape[-1])
        first = jnp.broadcast_to(self.class_embedding[...].astype(patches.dtype), patches[:, :1].shape)
        return jnp.concatenate([first, patches], axis=1) + self.position_embedding(jnp.arange(1 + patches.shape[1]))


class CLIPVisionTransformer(nnx.Module):
    """Embeddings, layer norm, encoder, and a layer norm on the class token."""

    def __init__(self, config: CLIPVisionConfig, **layer: Unpack[LayerOptions]) -> None:
        width, eps = config.hidden_size, config.layer_norm_eps
        self.embeddings = CLIPVisionEmbeddings(config, **layer)
        self.pre_layrnorm = nnx.LayerNorm(width, epsilon=eps, **layer)  # as published files spell it
        self.encoder = CLIPEncoder(config, causal=False, **layer)
        self.post_layernorm = nnx.LayerNorm(width, epsilon=eps, **layer)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Normalised pixels `[B, H, W, C]` of the size that it is made for -> `[B, D]`."""
        return self.read(self.encoder(self.embed(pixels))[-1])

    def embed(self, pixels: jax.Array) -> jax.Array:
        """What the encoder gets, `[B, 1 + patches, D]`."""
        return self.pre_layrnorm(self.embeddings(pixels))

    def read(self, state: jax.Array) -> jax.Array:
        """What the encoder gives, `[B, 1 + patches, D]` -> `[B, D]`."""
        return self.post_layernorm(state[:, 0])


class CLIPOutput(NamedTuple):
    """Embeddings of images and texts, `[B, projection_dim]`, each of length 1."""

    image: jax.Array
    text: jax.Array


class CLIPModel(nnx.Module):
    """Images and texts in one space.

    Args:
      config: the network's shape.
      dtype: type of the computation; None: that of the parameters.
      param_dtype: type that parameters are stored in.
      rngs: for initial parameters.
    """

    def __init__(
        self,
        config: CLIPConfig,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        layer = LayerOptions(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        text, vision, width = config.text_config, config.vision_config, config.projection_dim
        self.config = config
        self.text_model = CLIPTextTransformer(text, **layer)
        self.vision_model = CLIPVisionTransformer(vision, **layer)
        self.text_projection = nnx.Linear(text.hidden_size, width, use_bias=False, **layer)
        self.visual_projection = nnx.Linear(vision.hidden_size, width, use_bias=False, **layer)
        self.logit_scale = nnx.Param(jnp.asarray(math.log(1 / 0.07), param_dtype))

    def embed_images(self, pixels: jax.Array) -> jax.Array:
        """Normalised pixels `[B, H, W, 3]` -> `[B, projection_dim]` of length 1."""
        return self.project_image(self.vision_model(pixels))

    def project_image(self, pooled: jax.Array) -> jax.Array:
        """What the tower of images gives, `[B, D]` -> `[B, projection_dim]` of length 1."""
        return _unit(self.visual_projection(pooled))

    def embed_texts(self, input_ids: jax.Array) -> jax.Array:
        """Tokens `[B, L]` -> `[B, projection_dim]` of length 1."""
        return self.project_text(self.text_model(input_ids))

    def project_text(self, output: CLIPTextOutput) -> jax.Array:
        """What the tower of texts gives -> `[B, projection_dim]` of length 1."""
        return _unit(self.text_projection(output.pooled))

    def __call__(self, pixels: jax.Array, input_ids: jax.Array) -> CLIPOutput:
        """Both of images and texts."""
        return CLIPOutput(self.embed_images(pixels), self.embed_texts(input_ids))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
