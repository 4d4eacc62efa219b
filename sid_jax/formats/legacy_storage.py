"""A storage as PyTorch writes one by itself, which is how a pickle that is not `torch.save`'s carries its tensors.

It is five pickles, one after the other, then the number of values and the values, up to the end.
"""

import struct
from typing import Any, BinaryIO, NamedTuple

from sid_jax.formats.opcodes import Allowed, Payload, Refused, Unexpected, interpret, shown
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
    at, end = blob.payload.offset, blob.payload.offset + blob.payload.length
    found = []
    for _ in range(5):
        value, at = interpret(file, _STORAGE, at, end, _MOST_OPCODES)
        found.append(value)
    magic, version, system, identity, keys = found
    if magic != _MAGIC or version != _VERSION or not isinstance(system, dict):
        raise Refused(blob.payload.offset, "bytes that are not a storage of PyTorch's")
    if system.get("little_endian") is not True:
        raise Refused(blob.payload.offset, "a storage that is not little-endian")
    if not isinstance(identity, _Id) or keys != [identity.key]:
        raise Refused(blob.payload.offset, "a storage of other than one key")
    if end - at < 8:
        raise Refused(at, "a storage without a number of values: cut off")
    file.seek(at)
    (count,) = struct.unpack("<q", file.read(8))
    if count != identity.numbers or end - at - 8 != 4 * count:
        raise Refused(at, f"{identity.numbers} values by name, {count} by number, and {end - at - 8} bytes of them")
    return Values(at + 8, count, "<f4")


def _identified(value: Any) -> _Id:
    """What the persistent id of a storage says."""
    cls, key, count = storage_of(value, length=6)
    if cls != _FLOATS:
        raise Unexpected(f"a {cls}; networks of this kind are stored as {_FLOATS}")
    if not is_count(count, 1) or value[-1] is not None:
        raise Unexpected(f"a storage of {shown(count)} values, or that is part of another")
    return _Id(key, count)


_STORAGE = Allowed(
    named=frozenset({_FLOATS, "torch.HalfStorage", "torch.DoubleStorage", "torch.LongStorage"}),
    persistent=_identified,
    protocols=(2,),
)
