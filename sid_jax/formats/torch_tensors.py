"""Tensors in PyTorch's pickles: a view of a storage, whose values are read when their turn comes."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sid_jax.errors import UserError
from sid_jax.formats.opcodes import Global, Refused, Rule, Unexpected, shown
from sid_jax.formats.state_dict import Stored
from sid_jax.runtime.storage.small_files import reading_regular

_MOST_AXES = 8


@dataclass(frozen=True)
class Values:
    """The values of a storage: `count` of a type of NumPy's, from a byte of the file on."""

    offset: int
    count: int
    dtype: str


@dataclass(frozen=True, eq=False)
class View:
    """A tensor: which values of a storage it has. Numbers count values, not bytes.

    storage: what the file says of it, as its kind of files says it.
    """

    storage: Any
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """The first value of the storage that is beyond the tensor."""
        return self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True)) + 1

    @property
    def same_as(self) -> tuple[Any, ...]:
        """What two tensors of one storage must have in common."""
        return self.offset, self.size, self.stride

    def check(self, count: int) -> None:
        """Raises `Unexpected` where it is not within a storage of so many values, or has one of them twice."""
        if self.end > count:
            raise Unexpected(f"a tensor {list(self.size)} ends at value {self.end} of a storage of {count}")
        least = 1
        for step, n in sorted((step, n) for n, step in zip(self.size, self.stride, strict=True) if n > 1):
            if step < least:
                raise Unexpected(f"a tensor {list(self.size)} with strides {list(self.stride)}, which overlap")
            least = step * n

    def read(self, file: BinaryIO, values: Values) -> np.ndarray:
        """Its values, from the file.

        Raises:
          Unexpected: the file has become shorter.
        """
        item = np.dtype(values.dtype).itemsize
        file.seek(values.offset + item * self.offset)
        flat = np.fromfile(file, values.dtype, self.end - self.offset)
        if flat.size < self.end - self.offset:
            raise Unexpected("the file has become shorter while it was read")
        if flat.size == math.prod(self.size) and self._is_in_order():
            return flat.reshape(self.size)
        # Axes of length 1 carry any stride, and NumPy is not told of it.
        steps = [0 if n == 1 else step * item for n, step in zip(self.size, self.stride, strict=True)]
        return np.lib.stride_tricks.as_strided(flat, self.size, steps, writeable=False).copy()

    def _is_in_order(self) -> bool:
        expected = 1
        for n, step in zip(reversed(self.size), reversed(self.stride), strict=True):
            if n > 1 and step != expected:
                return False
            expected *= n
        return True


@dataclass(frozen=True)
class PlacedTensors:
    """The tensors of a file, each a view of values of it; see `bundle.Tensors`."""

    where: Path
    stored: Mapping[str, Stored]
    _views: Mapping[str, tuple[View, Values]]

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.where,)

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Pairs of name and array, in the order of the file; each array is read when it is asked for."""
        with reading_regular(self.where) as file:
            for name, (view, values) in self._views.items():
                with refusals(self.where):
                    array = view.read(file, values)
                yield name, array


@contextlib.contextmanager
def refusals(file: Path) -> Iterator[None]:
    """A context in which what is refused is one line that names the file."""
    try:
        yield
    except (Refused, Unexpected) as error:
        raise UserError(f"{file}: {error}") from error


def storage_of(value: Any, length: int) -> tuple[str, str, Any]:
    """What the persistent id of a storage says, a tuple of this length: its class, its key, and how many values it has.

    The number may be anything yet.

    Raises:
      Unexpected: it is of another form.
    """
    if not isinstance(value, tuple) or len(value) != length:
        raise Unexpected("a persistent id of another form than a storage's")
    kind, cls, key, device, numbers, *_ = value
    if kind != "storage" or not isinstance(cls, Global) or not isinstance(key, str) or not isinstance(device, str):
        raise Unexpected("a persistent id of another form than a storage's")
    return str(cls), key, numbers


def tensor_rules(storage: type) -> Mapping[str, Rule]:
    """How PyTorch's pickles make tensors and parameters, of storages for which such a class stands."""

    def tensor(arguments: tuple[Any, ...]) -> View:
        if len(arguments) not in (6, 7) or not isinstance(arguments[0], storage):
            raise Unexpected("its arguments are not those of a tensor")
        source, offset, size, stride, grad, hooks, *metadata = arguments
        if not _are_counts([offset], 0) or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise Unexpected("its arguments are not those of a tensor")
        if len(size) != len(stride) or len(size) > _MOST_AXES or not _are_counts(size, 1) or not _are_counts(stride, 0):
            raise Unexpected("a tensor of impossible size or strides")
        if not isinstance(grad, bool) or not _is_empty(hooks) or not all(map(_is_empty, metadata)):
            raise Unexpected("a tensor with hooks or metadata")
        return View(source, offset, size, stride)

    return {"torch._utils._rebuild_tensor_v2": tensor, "torch._utils._rebuild_parameter": _parameter}


def _parameter(arguments: tuple[Any, ...]) -> View:
    if len(arguments) != 3 or not isinstance(arguments[0], View) or not isinstance(arguments[1], bool):
        raise Unexpected("its arguments are not those of a parameter")
    if not _is_empty(arguments[2]):
        raise Unexpected("a parameter with hooks")
    view: View = arguments[0]
    return view


def empty_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """A dict that is made of nothing and filled later, whatever its class."""
    if arguments:
        raise Unexpected(f"made of {shown(arguments)}; it must begin empty")
    return {}


def _are_counts(values: Iterable[Any], least: int) -> bool:
    return all(is_count(n, least) for n in values)


def is_count(value: Any, least: int = 0) -> bool:
    """Whether a value is an int, no truth value, and at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not value)
