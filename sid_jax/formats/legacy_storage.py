"""Files of `torch.save` in its form of old, which was its only one before PyTorch 1.6, and which storages kept.

It is five pickles, one after the other, then for each storage the number of its values and the values, up to the end. A
whole state dict may be such a file. A pickle that is not `torch.save`'s carries each of its storages in this form.
"""

import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sid_jax.formats.opcodes import MOST_OPCODES, Allowed, Payload, Refused, Unexpected, interpret, shown
from sid_jax.formats.torch_tensors import Values, is_count, storage_of

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
BEGINS = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little")
"""How a storage begins, and any other file of `torch.save` in its form of old."""

_FLOATS = "torch.FloatStorage"
_MOST_OPCODES = 1000  # 20 are usual


class Blob(NamedTuple):
    """The bytes of a storage, which nobody has looked at yet."""

    payload: Payload


class _Id(NamedTuple):
    key: str
    numbers: int


def blob_of(arguments: tuple[Any, ...]) -> Blob:
    """What `torch.storage._load_from_bytes` is given."""
    if len(arguments) != 1 or not isinstance(arguments[0], Payload):
        raise Unexpected("its argument is not the bytes of a storage")
    payload: Payload = arguments[0]
    if payload.start.startswith(b"PK"):
        raise Unexpected("a storage in the form of a zip file, as none comes from a network's pickle")
    return Blob(payload)


def values_of(file: BinaryIO, blob: Blob) -> Values:
    """Where the values of a storage are in the file; they are float32, as in all published files.

    Raises:
      Refused: it is no storage, not of float32, not little-endian, or its number of values is not that of its bytes.
    """
    end = blob.payload.offset + blob.payload.length
    identity, keys, at = read_pickles(file, _STORAGE, blob.payload.offset, end, _MOST_OPCODES)
    if not isinstance(identity, _Id) or keys != [identity.key]:
        raise Refused(blob.payload.offset, "a storage of other than one key")
    if end - at < 8:
        raise Refused(at, "a storage without a number of values: cut off")
    file.seek(at)
    (count,) = struct.unpack("<q", file.read(8))
    if count != identity.numbers or end - at - 8 != 4 * count:
        raise Refused(at, f"{identity.numbers} values by name, {count} by number, and {end - at - 8} bytes of them")
    return Values(at + 8, count, "<f4")


def read_pickles(
    file: BinaryIO, allowed: Allowed, begin: int, end: int, most: int = MOST_OPCODES
) -> tuple[Any, list[Any], int]:
    """What the five pickles say: the value, the keys of its storages as the file says them, and where they end.

    Args:
      file: open for reading.
      allowed: what the value may have.
      begin: where the first one begins.
      end: where the file, or the part of it, ends.
      most: opcodes that the value may have.

    Raises:
      Refused: they are others, or not of a little-endian machine.
    """
    at = begin
    found = []
    for kind, count in ((_PLAIN, _MOST_OPCODES),) * 3 + ((allowed, most), (_PLAIN, most)):
        value, at = interpret(file, kind, at, end, count)
        found.append(value)
    magic, version, system, value, keys = found
    if magic != _MAGIC or version != _VERSION or not isinstance(system, dict):
        raise Refused(begin, "bytes that are not a storage of PyTorch's")
    if system.get("little_endian") is not True:
        raise Refused(begin, "a storage that is not little-endian")
    if not isinstance(keys, list):
        raise Refused(at, "no list of keys")
    return value, keys, at


def places_of(file: BinaryIO, storages: Sequence[tuple[str, str, int]], at: int, end: int) -> dict[str, Values]:
    """Where the values of each storage are, by its key.

    Args:
      file: open for reading.
      storages: key, type of NumPy's, and number of values of each, in the order of the file.
      at: where they begin.
      end: where the file ends, and they with it.

    Raises:
      Refused: there are others, or more or fewer bytes.
    """
    found = {}
    for key, dtype, numbers in storages:
        if end - at < 8:
            raise Refused(at, "a storage without a number of values: cut off")
        file.seek(at)
        (count,) = struct.unpack("<q", file.read(8))
        if count != numbers or count * np.dtype(dtype).itemsize > end - at - 8:
            raise Refused(at, f"{numbers} values of {dtype} by name, {count} by number, and {end - at - 8} bytes left")
        found[key] = Values(at + 8, count, dtype)
        at += 8 + count * np.dtype(dtype).itemsize
    if at != end:
        raise Refused(at, "bytes after the last storage")
    return found


def _identified(value: Any) -> _Id:
    """What the persistent id of a storage says."""
    cls, key, count = storage_of(value, length=6)
    if cls != _FLOATS:
        raise Unexpected(f"a {cls}; networks of this kind are stored as {_FLOATS}")
    if not is_count(count, 1) or value[-1] is not None:
        raise Unexpected(f"a storage of {shown(count)} values, or that is part of another")
    return _Id(key, count)


_PLAIN = Allowed(protocols=(2, 3))
_STORAGE = Allowed(
    named=frozenset({_FLOATS, "torch.HalfStorage", "torch.DoubleStorage", "torch.LongStorage"}),
    persistent=_identified,
    protocols=(2,),
)
