"""Arrays in files of NumPy, read and written a few rows at a time, without ever unpickling."""

import contextlib
import math
import os
import warnings
import weakref
import zipfile
from collections.abc import Iterator
from typing import IO, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from sid_jax.errors import UserError
from sid_jax.runtime.storage.small_files import open_regular, shown
from sid_jax.runtime.storage.zips import member


class Header(NamedTuple):
    """What is in a .npy file: an array, stored by columns or by rows, from a byte on."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool
    begin: int


def header_of(file: BinaryIO, name: str, size: int | None = None) -> Header:
    """Reads the header of a .npy file, and checks that the file has as many bytes as it says.

    Args:
      file: at its beginning.
      name: of the file, for messages.
      size: bytes of the file; None: as the disk says.

    Raises:
      ValueError: it is another version of the format, damaged, or cut short.
    """
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the format")
        with warnings.catch_warnings(action="error"):  # of odd headers
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy's parser raises nearly anything for damaged headers
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"{name} has a damaged header ({reason})") from error
    begin, size = file.tell(), os.fstat(file.fileno()).st_size if size is None else size
    if min(shape, default=0) < 0 or dtype.hasobject:
        raise ValueError(f"{name} has a damaged header ({dtype} {shape})")
    if size < begin + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {size} bytes, too few for {shape}")
    return Header(shape, dtype, by_columns, begin)


class Rows:
    """An array of floating-point numbers `[N, ...]` in a .npy file, of which rows are read when they are needed.

    Args:
      path: on a disk.
      what: begins the message of an error, such as the flag that names the file.

    Raises:
      UserError: there is no such file, it is no .npy file, or it holds something else.
    """

    def __init__(self, path: str, what: str) -> None:
        self._name = f"{what} {shown(path)}"
        try:
            # Read, not mapped: a disk that fails under a mapping ends the process without a word.
            self._file = open_regular(os.path.expanduser(path))
            weakref.finalize(self, self._file.close)
            self._header = header_of(self._file, "it")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{self._name} is no array that np.save has written: {reason}") from error
        if self._header.by_columns or self._header.dtype.kind != "f" or len(self.shape) < 1:
            order = ", stored by columns" if self._header.by_columns else ""
            raise UserError(
                f"{self._name} holds {self._header.dtype} {self.shape}{order}: save np.ascontiguousarray(x, np.float32)"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return self._header.shape

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows first to last - 1, as float32.

        Raises:
          UserError: they can't be read, or a number is not finite.
        """
        _, dtype, _, begin = self._header
        row = math.prod(self.shape[1:])
        try:
            data = os.pread(
                self._file.fileno(), (last - first) * row * dtype.itemsize, begin + first * row * dtype.itemsize
            )
            with np.errstate(over="ignore"):
                values = np.frombuffer(data, dtype).astype(np.float32).reshape(last - first, *self.shape[1:])
        except (OSError, ValueError) as error:
            raise UserError(f"{self._name}: rows {first} to {last - 1} can't be read: {error}") from error
        finite = np.isfinite(values).reshape(len(values), -1).all(1)
        if not finite.all():
            raise UserError(f"{self._name}: row {first + int(np.argmin(finite))} has numbers that are not finite")
        return values


@contextlib.contextmanager
def npy_in(packed: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[IO[bytes]]:
    """A context with a stream for the bytes of an array, row by row: a member of a zip file, which is then an .npz."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with packed.open(member(f"{name}.npy"), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file
