"""The configuration of a UNet, and what follows from it for each of its levels."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

from sid_jax.models.json_config import JsonConfig

_CROSS_DOWN, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_LARGEST_SAMPLE = 1024  # latents of pictures of 8,192 pixels a side; SDXL has 128
_CROSS_UP, _UP = "CrossAttnUpBlock2D", "UpBlock2D"


class UNetLevel(NamedTuple):
    """One resolution of a UNet.

    Attributes:
      channels: of its feature maps.
      resnets: residual blocks on the way down (there is one more on the way up).
      depth: transformer blocks after each of them, where the level has cross-attention.
      heads: of the attention.
    """

    channels: int
    resnets: int
    depth: int
    heads: int


class AddedEmbedding(NamedTuple):
    """What SDXL adds to the time embedding.

    Attributes:
      number_width: width of the sinusoidal embedding of each of the six numbers.
      width: of these embeddings and the pooled text together.
    """

    number_width: int
    width: int


@dataclasses.dataclass(frozen=True)
class UNetConfig(JsonConfig):
    """UNet2DConditionModel of Stable Diffusion 1.x, 2.x and XL. Fields are those of its `config.json`.

    `sample_size` is one number once the configuration is made: the side of the latents.
    `attention_head_dim` is, as in diffusers, the *number* of heads of each level (one int: of all levels).
    """

    in_channels: int = 4
    out_channels: int = 4
    sample_size: int | tuple[int, ...] | None = None
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

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {
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

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name in ("layers_per_block", "transformer_layers_per_block", "attention_head_dim"):
            object.__setattr__(self, name, _per_level(getattr(self, name), levels))
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
        for channels, _, _, heads in self.levels:
            self._require(channels % heads == 0, "attention_head_dim", f"{channels} channels don't split evenly")
            groups = self.norm_num_groups
            self._require(channels % groups == 0, "norm_num_groups", f"{channels} channels don't split evenly")
        self._require(self.norm_eps >= 0, "norm_eps", "it must not be negative")
        self._require(self.mid_block_scale_factor != 0, "mid_block_scale_factor", "it divides, and must not be 0")
        self._require(self.freq_shift < self.block_out_channels[0] // 2, "freq_shift", "it is too large")
        if isinstance(self.sample_size, tuple):  # height and width
            square = len(self.sample_size) == 2 and self.sample_size[0] == self.sample_size[1]
            self._require(square, "sample_size", "only squares are supported")
            object.__setattr__(self, "sample_size", self.sample_size[0])
        if isinstance(self.sample_size, int):
            sizes = f"the side of the latents is a number from 1 to {_LARGEST_SAMPLE}"
            self._require(1 <= self.sample_size <= _LARGEST_SAMPLE, "sample_size", sizes)
        self._require(self.block_out_channels[0] % 2 == 0, "block_out_channels", "the first must be even")
        self._require(self.addition_embed_type in (None, "text_time"), "addition_embed_type", "supported: 'text_time'")
        if self.addition_embed_type == "text_time":
            for name in ("addition_time_embed_dim", "projection_class_embeddings_input_dim"):
                self._require(getattr(self, name) is not None, name, "'text_time' needs a number here")
                self._require_positive(name)

    @property
    def levels(self) -> tuple[UNetLevel, ...]:
        """The resolutions, from the highest to the lowest."""
        count = len(self.block_out_channels)
        options = (self.layers_per_block, self.transformer_layers_per_block, self.attention_head_dim)
        per_level = zip(self.block_out_channels, *(_per_level(option, count) for option in options), strict=True)
        return tuple(UNetLevel(*values) for values in per_level)

    @property
    def added_embedding(self) -> AddedEmbedding | None:
        """What is added to the time embedding; None where nothing is."""
        number_width, width = self.addition_time_embed_dim, self.projection_class_embeddings_input_dim
        if self.addition_embed_type is None or number_width is None or width is None:
            return None
        return AddedEmbedding(number_width, width)

    @property
    def num_layers(self) -> int:
        """Transformer blocks on the way down, as if every level had them."""
        return sum(level.resnets * level.depth for level in self.levels)


def _per_level(value: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * levels
