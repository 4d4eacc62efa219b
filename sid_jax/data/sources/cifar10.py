"""CIFAR-10 as its authors publish it: `cifar-10-binary.tar.gz`, or `cifar-10-python.tar.gz`, which is not unpickled."""

import gzip
import os
import tempfile
import zlib
from typing import Any, BinaryIO

import numpy as np

from sid_jax.data.pairs import Pair
from sid_jax.data.sources.tar_members import members_of
from sid_jax.errors import UserError
from sid_jax.formats.opcodes import Allowed, Global, Payload, Refused, Unexpected, interpret
from sid_jax.runtime.storage.small_files import open_regular, shown

_MOST_BYTES = 2**28  # of the tar file; both have 186 MB
_PIXELS = 32 * 32 * 3
_BATCHES = range(1, 6)


class Cifar10:
    """The 50,000 images for training, in the order of the five batches.

    Args:
      path: of one of the two archives, on a disk.

    Raises:
      UserError: it is neither, or is damaged.
    """

    classes, encoded = 10, None

    def __init__(self, path: str) -> None:
        where = shown(path)
        try:
            with open_regular(os.path.expanduser(path)) as packed, tempfile.TemporaryFile() as tar:
                _unpack(packed, tar, where)
                tar.seek(0)
                members = dict(members_of(tar, where))
                read = [_batch(tar, members, number, where) for number in _BATCHES]
        except (OSError, ValueError) as error:
            raise UserError(f"{where} can't be read: {getattr(error, 'strerror', None) or error}") from error
        self._images = np.concatenate([images for images, _ in read])
        self._labels = np.concatenate([labels for _, labels in read])
        if self._labels.max(initial=0) >= self.classes:
            raise UserError(f"{where}: it has the class {self._labels.max()}, and CIFAR-10 the classes 0 to 9")
        self.name = f"CIFAR-10 in {path}"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Pair:
        planes = self._images[index].reshape(3, 32, 32)
        return Pair(np.ascontiguousarray(planes.transpose(1, 2, 0)), (int(self._labels[index]),))


def _unpack(packed: BinaryIO, tar: Any, where: str) -> None:
    try:
        with gzip.open(packed) as unpacking:
            while block := unpacking.read(2**20):
                tar.write(block)
                if tar.tell() > _MOST_BYTES:
                    raise UserError(f"{where}: unpacked it has more than the {_MOST_BYTES} bytes of CIFAR-10")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{where} is not a whole .tar.gz file: {error}") from error


def _batch(
    tar: BinaryIO, members: dict[str, tuple[int, int]], number: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """The images of a batch, uint8 `[n, 3072]`, and their labels."""
    binary, python = f"cifar-10-batches-bin/data_batch_{number}.bin", f"cifar-10-batches-py/data_batch_{number}"
    if binary in members:
        begin, size = members[binary]
        if size % (1 + _PIXELS):
            raise UserError(f"{where}: {binary} has {size} bytes: {1 + _PIXELS} are needed for each image")
        records = _bytes(tar, begin, size).reshape(-1, 1 + _PIXELS)
        return records[:, 1:], records[:, 0].astype(np.int64)
    if python in members:
        begin, size = members[python]
        try:
            value, _ = interpret(tar, _PYTHON_2, begin, begin + size)
            return _arrays(tar, value)
        except (Refused, Unexpected) as error:
            raise UserError(f"{where}: {python} is not a batch of CIFAR-10: {error}") from error
    raise UserError(f"{where} has neither {binary} nor {python}: name an archive of CIFAR-10 as it is published")


def _arrays(tar: BinaryIO, value: Any) -> tuple[np.ndarray, np.ndarray]:
    data, labels = (value.get(key) if isinstance(value, dict) else None for key in ("data", "labels"))
    if not isinstance(data, _Array) or data.payload is None or not isinstance(labels, list):
        raise Unexpected("it needs the array data and the list labels")
    if len(labels) != data.rows or not all(type(label) is int and 0 <= label < Cifar10.classes for label in labels):
        raise Unexpected(f"labels is no list of {data.rows} classes from 0 to {Cifar10.classes - 1}")
    return _bytes(tar, data.payload.offset, data.payload.length).reshape(-1, _PIXELS), np.array(labels, np.int64)


def _bytes(file: BinaryIO, begin: int, size: int) -> np.ndarray:
    file.seek(begin)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it has become shorter while it was read")
    return np.frombuffer(data, np.uint8)


class _Array:
    """What stands for an array of bytes: how many rows it has, and where they are."""

    rows = 0
    payload: Payload | None = None


class _ByteType:
    """What stands for NumPy's type of bytes."""


def _array(arguments: tuple[Any, ...]) -> _Array:
    if arguments != (Global("numpy", "ndarray"), (0,), "b"):
        raise Unexpected("an array of another kind")
    return _Array()


def _byte_type(arguments: tuple[Any, ...]) -> _ByteType:
    if arguments != ("u1", 0, 1):
        raise Unexpected("numbers of another type than bytes")
    return _ByteType()


def _fill(made: _Array, state: Any) -> None:
    known = isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _ByteType)
    if not known or state[0] != 1 or state[3] is not False or not isinstance(state[4], Payload):
        raise Unexpected("an array of another kind")
    _, shape, _, _, payload = state
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] != _PIXELS or type(shape[0]) is not int:
        raise Unexpected(f"an array of another shape than [N, {_PIXELS}]")
    if shape[0] < 1 or shape[0] * _PIXELS != payload.length:
        raise Unexpected(f"an array of {payload.length} bytes for {shape[0]} images")
    made.rows, made.payload = shape[0], payload


def _check_type(made: _ByteType, state: Any) -> None:
    if state != (3, "|", None, None, None, -1, -1, 0):
        raise Unexpected("numbers of another type than bytes")


_PYTHON_2 = Allowed(
    called={"numpy.core.multiarray._reconstruct": _array, "numpy.dtype": _byte_type},
    named=frozenset({"numpy.ndarray"}),
    built={_Array: _fill, _ByteType: _check_type},
    protocols=(2,),
    strings=True,
)
"""What a batch has: a dict of texts and lists, and an array of bytes, as Python 2 has pickled them."""
