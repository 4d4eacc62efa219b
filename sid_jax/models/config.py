"""Network configurations, read from the `config.json` that diffusers and transformers write.

Every field of the file is accounted for: it shapes the network, or it must have the one value that the network here
implements (`_REQUIRED`), or it has no part in the forward pass (`_INERT`). Anything else is an error that names the
field, so that a network is never built that differs in silence from what the file describes.
"""

import dataclasses
from typing import Any, ClassVar, Self

_CROSS_DOWN, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_CROSS_UP, _UP = "CrossAttnUpBlock2D", "UpBlock2D"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_types(name: str, field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` in the type of `field` (lists become tuples); ValueError where JSON holds another type."""
    checks = {
        int: _is_int,
        float: lambda v: _is_int(v) or isinstance(v, float),
        bool: lambda v: isinstance(v, bool),
        str: lambda v: isinstance(v, str),
        tuple[int, ...]: lambda v: isinstance(v, (list, tuple)) and bool(v) and all(map(_is_int, v)),
        tuple[str, ...]: lambda v: isinstance(v, (list, tuple)) and bool(v) and all(isinstance(s, str) for s in v),
    }
    options = [field.type] if field.type in checks else list(field.type.__args__)
    for option in options:
        if option is type(None):
            if value is None:
                return None
        elif checks[option](value):
            return tuple(value) if isinstance(value, list) else value
    expected = " or ".join("null" if o is type(None) else str(getattr(o, "__name__", o)) for o in options)
    raise ValueError(f"{name}: field {field.name!r} must be of type {expected}, found {value!r}")


class _FromDict:
    """Reading a configuration from a JSON object; the subclasses are frozen dataclasses."""

    _REQUIRED: ClassVar[dict[str, tuple]] = {}
    _INERT: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that the JSON object `values` describes.

        Fields that are absent take diffusers' own defaults. Raises ValueError with one line that names the field for
        an unknown field, an ill-typed one, or a value that is not implemented.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        chosen = {}
        for key, value in values.items():
            if key in fields:
                chosen[key] = _check_types(cls.__name__, fields[key], value)
            elif key in cls._REQUIRED:
                allowed = cls._REQUIRED[key]
                if value not in allowed or isinstance(value, bool) not in {isinstance(a, bool) for a in allowed}:
                    options = " or ".join(map(repr, allowed))
                    raise ValueError(f"{cls.__name__}: field {key!r} is {value!r}; only {options} is supported")
            elif not key.startswith("_") and key not in cls._INERT:
                raise ValueError(f"{cls.__name__}: field {key!r} (value {value!r}) is not supported")
        return cls(**chosen)

    def _require(self, condition: bool, field: str, reason: str) -> None:
        if not condition:
            raise ValueError(f"{type(self).__name__}: field {field!r} is {getattr(self, field)!r}; {reason}")

    def _require_positive(self, *fields: str) -> None:
        for field in fields:
            value = getattr(self, field)
            smallest = min(value) if isinstance(value, tuple) else value
            self._require(smallest > 0, field, "it must be positive")


@dataclasses.dataclass(frozen=True)
class UNetConfig(_FromDict):
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


@dataclasses.dataclass(frozen=True)
class AutoencoderKLConfig(_FromDict):
    """AutoencoderKL of Stable Diffusion 1.x, 2.x and XL. Fields are those of its `config.json`."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    sample_size: int = 32
    block_out_channels: tuple[int, ...] = (64,)
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    layers_per_block: int = 1
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True

    _REQUIRED: ClassVar[dict[str, tuple]] = {
        "act_fn": ("silu", "swish"),
        "shift_factor": (None,),
        "latents_mean": (None,),
        "latents_std": (None,),
        "use_quant_conv": (True,),
        "use_post_quant_conv": (True,),
        "mid_block_add_attention": (True,),
    }

    def __post_init__(self):
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


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig(_FromDict):
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

    _REQUIRED: ClassVar[dict[str, tuple]] = {"model_type": ("clip_text_model",)}
    _INERT: ClassVar[frozenset[str]] = frozenset({
        "architectures", "attention_dropout", "bos_token_id", "dropout", "dtype", "initializer_factor",
        "initializer_range", "pad_token_id", "torch_dtype", "transformers_version", "use_cache",
    })  # fmt: skip

    def __post_init__(self):
        self._require_positive(
            "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers",
            "num_attention_heads", "max_position_embeddings",
        )  # fmt: skip
        self._require(self.hidden_act in ("quick_gelu", "gelu"), "hidden_act", "supported: 'quick_gelu', 'gelu'")
        even = self.hidden_size % self.num_attention_heads == 0
        self._require(even, "num_attention_heads", f"{self.hidden_size} hidden units don't split evenly")
