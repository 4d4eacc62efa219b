"""A source as it was brought: which kind it is, what it says of itself, and its tensors by part."""

import abc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sid_jax.formats.state_dict import Stored


class Tensors(Protocol):
    """The tensors of one network.

    where: what error messages name.
    files: in which they are, for digests.
    stored: what the files say of each tensor, without reading it.
    """

    @property
    def where(self) -> Path: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def stored(self) -> Mapping[str, Stored]: ...

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Pairs of name and array; each array is read when it is asked for."""
        ...


class Bundle(abc.ABC):
    """What any format gives: `kind` chooses the family, `config` and `weights` are those of one part, by its name.

    Attributes:
      source: what the user named.
      kind: what the source says that it is, such as "StableDiffusionPipeline"; any JSON value.
      kind_at: where it says so, for error messages.
      folder: where further files are; None if there are none.
      about: what sid_jax wrote of a student into it; empty for other people's files.
      about_at: where that is, for error messages.
      licence: under which the weights are; "" where the source does not say.
      recorded: of each module of a network, by its path, what its class is and what else the source says of it; empty
        where it says no more than a configuration.
    """

    source: str
    kind: Any
    kind_at: str
    folder: Path | None = None
    about: Mapping[str, Any] = {}
    about_at: str = ""
    licence: str = ""
    recorded: Mapping[str, Mapping[str, Any]] = {}

    @abc.abstractmethod
    def config(self, part: str) -> dict[str, Any]:
        """The JSON configuration of a part. Raises UserError where there is none, or it is damaged."""

    @abc.abstractmethod
    def config_at(self, part: str) -> str:
        """Where the configuration of a part is, for error messages."""

    @abc.abstractmethod
    def check_class(self, part: str, allowed: tuple[str, ...]) -> None:
        """Raises UserError if the source says that a part is of another class."""

    @abc.abstractmethod
    def weights(self, part: str) -> Tensors:
        """The tensors of a part, fetched if need be. Raises UserError where there are none, or they are damaged."""

    @abc.abstractmethod
    def tokenizer(self, part: str) -> Any:
        """The tokenizer of a part. Raises UserError where there is none, or it is damaged."""
