"""Numbers and arrays of NumPy in pickles: what stands for them; their bytes stay in the file until they are needed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from sid_jax.formats.opcodes import Global, Payload, Rule, Unexpected
from sid_jax.formats.torch_tensors import is_count

_HOMES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and since
_BUFFERS = ("numpy.core.numeric", "numpy._core.numeric")
_MOST_AXES = 8


@dataclass(eq=False)
class NumberType:
    """A type of numbers, such as "f8"; their order of bytes is said later."""

    code: str
    little_endian: bool = False


@dataclass(eq=False)
class PickledArray:
    """An array, filled after it is made: its shape, its type, and where its bytes are."""

    shape: tuple[int, ...] = ()
    code: str = ""
    by_columns: bool = False
    payload: Payload | None = None

    def read(self, file: BinaryIO) -> np.ndarray:
        """The array.

        Raises:
          Unexpected: it has no content, or the file has become shorter.
        """
        if self.payload is None:
            raise Unexpected("an array without content")
        file.seek(self.payload.offset)
        data = file.read(self.payload.length)
        if len(data) < self.payload.length:
            raise Unexpected("the file has become shorter while it was read")
        return np.frombuffer(data, f"<{self.code}").reshape(self.shape, order="F" if self.by_columns else "C")


def number_rules(*codes: str) -> Mapping[str, Rule]:
    """How pickles make numbers of NumPy of these types; `set_order` belongs to it."""
    names = " or ".join(np.dtype(code).name for code in codes)

    def number_type(arguments: tuple[Any, ...]) -> NumberType:
        known = [type(each) for each in arguments] == [str, bool, bool] and arguments[1:] == (False, True)
        if not known or arguments[0] not in codes:
            raise Unexpected(f"a type of numbers other than {names}")
        return NumberType(arguments[0])

    return {"numpy.dtype": number_type, **{f"{home}.scalar": _scalar for home in _HOMES}}


def array_rules(*codes: str) -> Mapping[str, Rule]:
    """How pickles make arrays of these types too; `set_order` and `fill` belong to it."""
    return {
        **number_rules(*codes),
        **{f"{home}._reconstruct": _array for home in _HOMES},
        **{f"{home}._frombuffer": _array_of_buffer for home in _BUFFERS},
    }


def set_order(number_type: NumberType, state: Any) -> None:
    """BUILD of a type of numbers: the order of their bytes."""
    is_known = isinstance(state, tuple) and len(state) == 8 and all(type(x) in (int, str, type(None)) for x in state)
    if not is_known or state[0] != 3 or state[2:] != (None, None, None, -1, -1, 0):
        raise Unexpected(f"a type of numbers other than {np.dtype(number_type.code).name}")
    if state[1] != "<":
        raise Unexpected(
            "a number that is not little-endian" if state[1] == ">" else "a type of another order of bytes"
        )
    number_type.little_endian = True


def fill(array: PickledArray, state: Any) -> None:
    """BUILD of an array: its shape, its type, whether it is stored by columns, and its bytes."""
    if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or not isinstance(state[3], bool):
        raise Unexpected("an array of another form")
    _place(array, state[4], state[2], state[1], state[3])


def _scalar(arguments: tuple[Any, ...]) -> float | int:
    if len(arguments) != 2 or not isinstance(arguments[0], NumberType) or not isinstance(arguments[1], Payload):
        raise Unexpected("its arguments are not a type and the bytes of a number")
    number_type, payload = arguments
    size = np.dtype(number_type.code).itemsize
    if not number_type.little_endian or payload.length != size:
        raise Unexpected(f"a number of other than {size} bytes, or of no order of them")
    value: float | int = np.frombuffer(payload.start[:size], f"<{number_type.code}")[0].item()
    return value


def _array(arguments: tuple[Any, ...]) -> PickledArray:
    known = len(arguments) == 3 and arguments[:2] == (Global("numpy", "ndarray"), (0,))
    if not known or not isinstance(arguments[2], Payload) or arguments[2].start != b"b":
        raise Unexpected("an array of another class")
    return PickledArray()


def _array_of_buffer(arguments: tuple[Any, ...]) -> PickledArray:
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise Unexpected("an array of another form")
    array = PickledArray()
    _place(array, *arguments[:3], arguments[3] == "F")
    return array


def _place(array: PickledArray, payload: Any, number_type: Any, shape: Any, by_columns: bool) -> None:
    if array.payload is not None or not isinstance(payload, Payload):
        raise Unexpected("an array without its bytes, or with them twice")
    if not isinstance(number_type, NumberType) or not number_type.little_endian:
        raise Unexpected("an array of no type of numbers")
    if not isinstance(shape, tuple) or len(shape) > _MOST_AXES or not all(map(is_count, shape)):
        raise Unexpected("an array of an impossible shape")
    if math.prod(shape) * np.dtype(number_type.code).itemsize != payload.length:
        raise Unexpected(f"an array {list(shape)} of {payload.length} bytes")
    array.shape, array.code, array.by_columns, array.payload = shape, number_type.code, by_columns, payload
