"""The configurations of EDM's networks and preconditioners, as the published files record them (`init_kwargs`).

A file's `init_kwargs` are one flat object: the preconditioner's own keywords, and those of the network that
`model_type` names. What a file leaves unsaid has the defaults of that class.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from sid_jax.models.json_config import JsonConfig

_LARGEST_SIDE = 1024
_MOST_CHANNELS = 2**16
_MOST_LABELS = 10**6
_MOST_LEVELS = 10
_MOST_BLOCKS = 40
_HEAD = 64  # channels of a head of DhariwalUNet's attention
STEPS = 1000
"""Discrete times that VP and iDDPM count."""


class Entry(NamedTuple):
    """One entry of the encoder or of the decoder.

    Attributes:
      name: its attribute.
      kind: "conv", "down", "aux_residual" or "block" of an encoder; "in", "up" or "block" of a decoder.
      in_channels: of its input; a decoder's "block" reads its input beside a skip connection.
      out_channels: of its output.
      heads: of its attention, 0 for none.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    heads: int = 0


def groups_of(channels: int) -> int:
    """How many groups a norm of so many channels has."""
    return min(32, channels // 4)


@dataclasses.dataclass(frozen=True)
class NetworkConfig(JsonConfig):
    """What both kinds of networks are told."""

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.10
    augment_dim: int = 0

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {"label_dropout": (0, 0.0)}
    _MAY_BE_EMPTY: ClassVar[frozenset[str]] = frozenset({"attn_resolutions"})

    def __post_init__(self) -> None:
        self._require_positive("model_channels", "channel_mult", "channel_mult_emb", "num_blocks")
        self._require(len(self.channel_mult) <= _MOST_LEVELS, "channel_mult", f"at most {_MOST_LEVELS} are supported")
        self._require(self.num_blocks <= _MOST_BLOCKS, "num_blocks", f"at most {_MOST_BLOCKS} are supported")
        self._require(0 <= self.dropout < 1, "dropout", "it must be at least 0 and less than 1")
        self._require(0 <= self.augment_dim <= _MOST_CHANNELS, "augment_dim", f"0 to {_MOST_CHANNELS} are supported")
        largest = max(*self.level_channels, self.embedding_channels, self.noise_channels)
        self._require(largest <= _MOST_CHANNELS, "model_channels", f"at most {_MOST_CHANNELS} channels are supported")
        noise = self.noise_channels
        self._require(noise >= 4 and noise % 2 == 0, "model_channels", "it must be even, and at least 4")

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each resolution, the highest first."""
        return tuple(self.model_channels * multiple for multiple in self.channel_mult)

    @property
    def embedding_channels(self) -> int:
        """Width of the embedding that the blocks are given."""
        return self.model_channels * self.channel_mult_emb

    @property
    def noise_channels(self) -> int:
        """Width of the embedding of the noise level."""
        return self.model_channels

    @property
    def first_channels(self) -> int:
        """Channels after the first convolution."""
        return self.level_channels[0]

    @property
    def residual(self) -> bool:
        """Whether the encoder adds the filtered image at each resolution (NCSN++)."""
        return False

    @property
    def num_layers(self) -> int:
        """Entries of encoder and decoder."""
        return len(self.channel_mult) * (2 * self.num_blocks + 4)

    @abc.abstractmethod
    def heads(self, channels: int) -> int:
        """Heads of an attention over so many channels."""

    @abc.abstractmethod
    def decoder_attention(self, block: int) -> bool:
        """Whether the decoder's block of this number has attention, where the resolution has."""

    def encoder(self, resolution: int, channels: int) -> tuple[Entry, ...]:
        """The encoder's entries in order, for images of a resolution and a number of channels."""
        entries, c, aux = [], self.first_channels, channels
        for level, out in enumerate(self.level_channels):
            side = resolution >> level
            if level == 0:
                entries.append(Entry(f"{side}x{side}_conv", "conv", channels, c))
            else:
                entries.append(Entry(f"{side}x{side}_down", "down", c, c))
                if self.residual:
                    entries.append(Entry(f"{side}x{side}_aux_residual", "aux_residual", aux, c))
                    aux = c
            for i in range(self.num_blocks):
                heads = self.heads(out) if side in self.attn_resolutions else 0
                entries.append(Entry(f"{side}x{side}_block{i}", "block", c, out, heads))
                c = out
        return tuple(entries)

    def decoder(self, resolution: int, channels: int) -> tuple[Entry, ...]:
        """The decoder's entries in order, for images of a resolution and a number of channels."""
        skips = [entry.out_channels for entry in self.encoder(resolution, channels) if entry.kind != "aux_residual"]
        entries, c = [], skips[-1]
        for level, out in reversed(list(enumerate(self.level_channels))):
            side = resolution >> level
            if level == len(self.level_channels) - 1:
                entries.append(Entry(f"{side}x{side}_in0", "in", c, c, self.heads(c)))
                entries.append(Entry(f"{side}x{side}_in1", "in", c, c))
            else:
                entries.append(Entry(f"{side}x{side}_up", "up", c, c))
            for i in range(self.num_blocks + 1):
                attention = side in self.attn_resolutions and self.decoder_attention(i)
                heads = self.heads(out) if attention else 0
                entries.append(Entry(f"{side}x{side}_block{i}", "block", c + skips.pop(), out, heads))
                c = out
        return tuple(entries)


@dataclasses.dataclass(frozen=True)
class SongConfig(NetworkConfig):
    """SongUNet: DDPM++ by its defaults, NCSN++ with Fourier embeddings, a residual encoder and a wider filter."""

    channel_mult_noise: int = 1
    embedding_type: str = "positional"
    encoder_type: str = "standard"
    resample_filter: tuple[int, ...] = (1, 1)

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {**NetworkConfig._REQUIRED, "decoder_type": ("standard",)}

    def __post_init__(self) -> None:
        self._require_positive("channel_mult_noise")
        super().__post_init__()
        for field, allowed in (
            ("embedding_type", ("positional", "fourier")),
            ("encoder_type", ("standard", "residual")),
            ("resample_filter", ((1, 1), (1, 3, 3, 1))),
        ):
            options = " and ".join(str(list(each) if isinstance(each, tuple) else each) for each in allowed)
            self._require(getattr(self, field) in allowed, field, f"{options} are supported")

    @property
    def noise_channels(self) -> int:
        """Width of the embedding of the noise level."""
        return self.model_channels * self.channel_mult_noise

    @property
    def first_channels(self) -> int:
        """Channels after the first convolution."""
        return self.model_channels

    @property
    def residual(self) -> bool:
        """Whether the encoder adds the filtered image at each resolution (NCSN++)."""
        return self.encoder_type == "residual"

    def heads(self, channels: int) -> int:
        """One."""
        return 1

    def decoder_attention(self, block: int) -> bool:
        """The last one has."""
        return block == self.num_blocks


@dataclasses.dataclass(frozen=True)
class DhariwalConfig(NetworkConfig):
    """DhariwalUNet: ADM."""

    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)

    def heads(self, channels: int) -> int:
        """One for each 64 channels."""
        self._require(
            channels % _HEAD == 0, "channel_mult", f"attention over {channels} channels has no {_HEAD} a head"
        )
        return channels // _HEAD

    def decoder_attention(self, block: int) -> bool:
        """All have."""
        return True


_NETWORKS: dict[str, type[NetworkConfig]] = {"SongUNet": SongConfig, "DhariwalUNet": DhariwalConfig}


@dataclasses.dataclass(frozen=True)
class PrecondConfig(JsonConfig):
    """What all preconditioners are told.

    `network` is what `model_type` is told: in a file its fields stand beside those of the preconditioner.
    `use_fp16` is how the published code computes; here the constructor's `dtype` says it.
    """

    img_resolution: int = 0
    img_channels: int = 0
    label_dim: int = 0
    use_fp16: bool = False
    model_type: str = "SongUNet"
    network: NetworkConfig = SongConfig()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that the `init_kwargs` of a file describe.

        Args:
          values: the object. Fields that are absent take the defaults of the published classes.

        Raises:
          ValueError: with one line that names the field: an unknown or missing field, an ill-typed one, or a value that
            is not implemented.
        """
        own = {field.name for field in dataclasses.fields(cls)} - {"network"} | set(cls._REQUIRED)
        model_type = values.get("model_type", cls.model_type)
        if not isinstance(model_type, str) or model_type not in _NETWORKS:
            names = " and ".join(_NETWORKS)
            raise ValueError(f"{cls.__name__}: field 'model_type' is {model_type!r:.200}; {names} are supported")
        kind = _NETWORKS[model_type]
        known = own | {field.name for field in dataclasses.fields(kind)} | set(kind._REQUIRED)
        for key, value in values.items():
            if key not in known:
                raise ValueError(
                    f"{cls.__name__} over {model_type}: field {key!r:.200} (value {value!r:.200}) is not supported"
                )
        for key in ("img_resolution", "img_channels"):
            if key not in values:
                raise ValueError(f"{cls.__name__}: field {key!r} is missing")
        network = kind.from_dict({key: value for key, value in values.items() if key not in own})
        config = super().from_dict({key: value for key, value in values.items() if key in own})
        config = dataclasses.replace(config, network=network)
        config._check_shape()
        return config

    def __post_init__(self) -> None:
        self._require(
            1 <= self.img_resolution <= _LARGEST_SIDE, "img_resolution", f"1 to {_LARGEST_SIDE} are supported"
        )
        self._require(1 <= self.img_channels <= _MOST_CHANNELS, "img_channels", f"1 to {_MOST_CHANNELS} are supported")
        self._require(0 <= self.label_dim <= _MOST_LABELS, "label_dim", f"0 to {_MOST_LABELS} are supported")

    @property
    def num_layers(self) -> int:
        """Entries of the network's encoder and decoder."""
        return self.network.num_layers

    @property
    def encoder(self) -> tuple[Entry, ...]:
        """The network's encoder."""
        return self.network.encoder(self.img_resolution, self.img_channels)

    @property
    def decoder(self) -> tuple[Entry, ...]:
        """The network's decoder."""
        return self.network.decoder(self.img_resolution, self.img_channels)

    @property
    @abc.abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """The smallest and the largest noise level that the network is for."""

    def _check_shape(self) -> None:
        smallest = 2 ** (len(self.network.channel_mult) - 1)
        self._require(self.img_resolution % smallest == 0, "img_resolution", f"it must be a multiple of {smallest}")
        for entry in (*self.encoder, *self.decoder):
            if "aux" in entry.kind or entry.kind == "conv":
                continue
            for channels in (entry.in_channels, entry.out_channels):
                if channels < 4 or channels % groups_of(channels):
                    raise ValueError(
                        f"{type(self).__name__}: {entry.name}: {channels} channels make no groups of a norm"
                    )


@dataclasses.dataclass(frozen=True)
class EDMPrecondConfig(PrecondConfig):
    """EDMPrecond."""

    model_type: str = "DhariwalUNet"
    sigma_min: float = 0.0
    sigma_max: float | None = None
    sigma_data: float = 0.5

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """As that of all; the largest noise level may be infinite, which is what it is by default."""
        return super().from_dict({k: v for k, v in values.items() if (k, v) != ("sigma_max", math.inf)})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("sigma_data")

    @property
    def sigma_range(self) -> tuple[float, float]:
        """As it is told; by default all levels."""
        return self.sigma_min, math.inf if self.sigma_max is None else self.sigma_max


@dataclasses.dataclass(frozen=True)
class VPPrecondConfig(PrecondConfig):
    """VPPrecond. Its constants are those of the published files."""

    beta_d: ClassVar[float] = 19.9
    beta_min: ClassVar[float] = 0.1
    epsilon_t: ClassVar[float] = 1e-5

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "beta_d": (beta_d,), "beta_min": (beta_min,), "epsilon_t": (epsilon_t,), "M": (STEPS,)
    }  # fmt: skip

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The levels of times from 1e-5 to 1."""
        return self._level(self.epsilon_t), self._level(1.0)

    def _level(self, time: float) -> float:
        return math.sqrt(math.expm1(self.beta_d * time**2 / 2 + self.beta_min * time))


@dataclasses.dataclass(frozen=True)
class VEPrecondConfig(PrecondConfig):
    """VEPrecond."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    @property
    def sigma_range(self) -> tuple[float, float]:
        """As it is told."""
        return self.sigma_min, self.sigma_max


@dataclasses.dataclass(frozen=True)
class IDDPMPrecondConfig(PrecondConfig):
    """iDDPMPrecond. Its constants are those of the published files."""

    model_type: str = "DhariwalUNet"

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {"C_1": (0.001,), "C_2": (0.008,), "M": (STEPS,)}

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The levels of the first and the last but one of its steps."""
        levels = iddpm_levels()
        return float(levels[STEPS - 1]), float(levels[0])


def iddpm_levels() -> np.ndarray:
    """The noise levels u_0 > ... > u_1000 = 0 of iDDPM's steps, in float32."""
    signal = np.sin(np.pi / 2 * np.arange(STEPS + 1) / (STEPS * 1.008)) ** 2
    levels = np.zeros(STEPS + 1)
    for j in range(STEPS, 0, -1):
        levels[j - 1] = np.sqrt((levels[j] ** 2 + 1) / max(signal[j - 1] / signal[j], 0.001) - 1)
    return levels.astype(np.float32)
