"""CLIP's text encoders (Radford et al. 2021): transformers' CLIPTextModel and CLIPTextModelWithProjection.

The parts of the network are built from its whole configuration, and from the `LayerOptions` of all layers. The layers
are those of both towers; that of images is in `clip_vision`.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.json_config import TransformerConfig
from sid_jax.models.layers.attention import attend
from sid_jax.models.layers.options import LayerOptions

_LONGEST = 100_000  # tokens; a text is filled up to as many


class TowerConfig(TransformerConfig):
    """What the layers of either tower are built from."""

    intermediate_size: int
    hidden_act: str

    def _require_layers(self) -> None:
        super()._require_layers()
        self._require(self.hidden_act in ("quick_gelu", "gelu"), "hidden_act", "supported: 'quick_gelu', 'gelu'")


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig(TowerConfig):
    """CLIPTextModel and CLIPTextModelWithProjection. Fields are those of transformers' `config.json`."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {"model_type": ("clip_text_model",)}
    _INERT: ClassVar[frozenset[str]] = frozenset({
        "architectures", "attention_dropout", "bos_token_id", "dropout", "dtype", "initializer_factor",
        "initializer_range", "pad_token_id", "torch_dtype", "transformers_version", "use_cache",
    })  # fmt: skip

    def __post_init__(self) -> None:
        self._require_positive(
            "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers",
            "num_attention_heads", "max_position_embeddings",
        )  # fmt: skip
        longest = f"texts of more than {_LONGEST} tokens are not supported"
        self._require(self.max_position_embeddings <= _LONGEST, "max_position_embeddings", longest)
        self._require(0 <= self.eos_token_id < 2**31, "eos_token_id", "it is no number of a word")
        self._require_layers()


class CLIPTextOutput(NamedTuple):
    """What a text encoder says of tokens `[B, L]`.

    Attributes:
      last_hidden_state: `[B, L, D]`, after the final layer norm (what SD1.x and SD2.x are conditioned on).
      hidden_states: the input of the first layer and the output of each, `[B, L, D]`, without the final layer norm
        (SDXL is conditioned on the last but one).
      pooled: the state at the end-of-text token, `[B, D]`; projected, `[B, P]`, where the model has a projection.
    """

    last_hidden_state: jax.Array
    hidden_states: tuple[jax.Array, ...]
    pooled: jax.Array


def _activation(name: str, x: jax.Array) -> jax.Array:
    return x * nnx.sigmoid(1.702 * x) if name == "quick_gelu" else nnx.gelu(x, approximate=False)


class CLIPEmbeddings(nnx.Module):
    """Token plus position embedding."""

    def __init__(self, config: CLIPTextConfig, **layer: Unpack[LayerOptions]) -> None:
        self.token_embedding = nnx.Embed(config.vocab_size, config.hidden_size, **layer)
        self.position_embedding = nnx.Embed(config.max_position_embeddings, config.hidden_size, **layer)

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        """Tokens `[B, L]` -> `[B, L, D]`."""
        return self.token_embedding(input_ids) + self.position_embedding(jnp.arange(input_ids.shape[1]))


class CLIPAttention(nnx.Module):
    """Multi-head self-attention; causal in the text encoder."""

    def __init__(self, config: TowerConfig, causal: bool, **layer: Unpack[LayerOptions]) -> None:
        width = config.hidden_size
        self.q_proj = nnx.Linear(width, width, **layer)
        self.k_proj = nnx.Linear(width, width, **layer)
        self.v_proj = nnx.Linear(width, width, **layer)
        self.out_proj = nnx.Linear(width, width, **layer)
        self.heads, self.causal = config.num_attention_heads, causal

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        q, k, v = (f(x).reshape(*x.shape[:2], self.heads, -1) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend(q, k, v, causal=self.causal).reshape(x.shape))


class CLIPMLP(nnx.Module):
    """Two linear layers with CLIP's activation between."""

    def __init__(self, config: TowerConfig, **layer: Unpack[LayerOptions]) -> None:
        self.fc1 = nnx.Linear(config.hidden_size, config.intermediate_size, **layer)
        self.fc2 = nnx.Linear(config.intermediate_size, config.hidden_size, **layer)
        self.hidden_act = config.hidden_act

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        return self.fc2(_activation(self.hidden_act, self.fc1(x)))


class CLIPEncoderLayer(nnx.Module):
    """Attention and MLP, each on a layer norm and added to its input."""

    def __init__(self, config: TowerConfig, causal: bool, **layer: Unpack[LayerOptions]) -> None:
        self.layer_norm1 = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **layer)
        self.self_attn = CLIPAttention(config, causal, **layer)
        self.layer_norm2 = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **layer)
        self.mlp = CLIPMLP(config, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`."""
        x += self.self_attn(self.layer_norm1(x))
        x += self.mlp(self.layer_norm2(x))
        return x


class CLIPEncoder(nnx.Module):
    """The stack of layers.

    Args:
      config: of the tower.
      causal: whether a position sees those up to itself only.
      **layer: see `LayerOptions`.
    """

    def __init__(self, config: TowerConfig, causal: bool, **layer: Unpack[LayerOptions]) -> None:
        self.layers = nnx.List([CLIPEncoderLayer(config, causal, **layer) for _ in range(config.num_hidden_layers)])

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """`[B, L, D]` -> that, and the output `[B, L, D]` of each layer."""
        states = [x]
        for module in self.layers:
            states.append(module(states[-1]))
        return tuple(states)


class CLIPTextTransformer(nnx.Module):
    """Embeddings, encoder and final layer norm."""

    def __init__(self, config: CLIPTextConfig, **layer: Unpack[LayerOptions]) -> None:
        self.embeddings = CLIPEmbeddings(config, **layer)
        self.encoder = CLIPEncoder(config, causal=True, **layer)
        self.final_layer_norm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **layer)
        self.eos_token_id = config.eos_token_id

    def __call__(self, input_ids: jax.Array) -> CLIPTextOutput:
        """Tokens `[B, L]` -> their embeddings, `pooled` not projected."""
        return self.read(self.encoder(self.embeddings(input_ids)), input_ids)

    def read(self, states: tuple[jax.Array, ...], input_ids: jax.Array) -> CLIPTextOutput:
        """What follows the encoder.

        Args:
          states: the encoder's; at least the last, `[B, L, D]`.
          input_ids: the tokens, `[B, L]`.
        """
        last = self.final_layer_norm(states[-1])
        # Published configs say eos_token_id 2 by mistake. With them, as in transformers, the end of the text is the
        # token with the highest id.
        ends = input_ids if self.eos_token_id == 2 else input_ids == self.eos_token_id
        end = jnp.argmax(ends, axis=-1)
        return CLIPTextOutput(last, states, last[jnp.arange(last.shape[0]), end])


class CLIPTextModel(nnx.Module):
    """Text encoder of SD1.x, SD2.x, and the first of SDXL.

    Args:
      config: the network's shape.
      dtype: type of the computation; None: that of the parameters.
      param_dtype: type that parameters are stored in.
      rngs: for initial parameters.
    """

    def __init__(
        self,
        config: CLIPTextConfig,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.config = config
        self.text_model = CLIPTextTransformer(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, input_ids: jax.Array) -> CLIPTextOutput:
        """Tokens `[B, L]`, L at most `max_position_embeddings` -> their embeddings."""
        return self.text_model(input_ids)


class CLIPTextModelWithProjection(CLIPTextModel):
    """Second text encoder of SDXL: its pooled output is projected. Arguments as CLIPTextModel's."""

    def __init__(
        self,
        config: CLIPTextConfig,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.text_projection = nnx.Linear(
            config.hidden_size, config.projection_dim, use_bias=False, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )

    def __call__(self, input_ids: jax.Array) -> CLIPTextOutput:
        """Tokens `[B, L]` -> their embeddings, `pooled` being `text_embeds` `[B, projection_dim]`."""
        output = self.text_model(input_ids)
        return output._replace(pooled=self.text_projection(output.pooled))
