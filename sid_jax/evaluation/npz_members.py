"""Arrays of an .npz file that somebody else made: read one by one, and only as large as the file can hold them."""

import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

import numpy as np

from sid_jax.errors import UserError
from sid_jax.formats.opcodes import shown
from sid_jax.runtime.storage.arrays import Header, header_of

_MOST_MEMBERS = 1000
_LARGE, _MOST_PACKING = 2**28, 20  # bytes beyond which an array is not unpacked from a twentieth of them


class NpzMembers:
    """The arrays of an .npz file, packed or not. Objects are refused, as nothing is unpickled.

    Args:
      file: open for reading.
      where: its name, for messages.

    Attributes:
      names: of the arrays.
      where: as given.

    Raises:
      UserError: it is no whole zip file.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.where = where
        with self._damage("the file"):
            self._archive = zipfile.ZipFile(file)
        infos = [info for info in self._archive.infolist() if info.filename.endswith(".npy")]
        self._infos = {info.filename.removesuffix(".npy"): info for info in infos}
        self.names = list(self._infos)
        if len(infos) > _MOST_MEMBERS or len(infos) > len(self.names):
            raise UserError(f"{where}: more than {_MOST_MEMBERS} arrays in it, or two of one name")

    def header(self, name: str) -> Header:
        """What is said of an array, which the file is large enough for.

        Raises:
          UserError: it is no array of numbers or texts, or the file is too small for it.
        """
        with self._open(name) as stream:
            return self._header(stream, name)

    def read(self, name: str, kinds: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array.

        Args:
          name: of it.
          kinds: of NumPy's types that it may have, a letter each.
          shape: that it must have; what is larger is not read.

        Raises:
          UserError: it is another one, or damaged.
        """
        with self._open(name) as stream:
            header = self._header(stream, name)
            size, info = math.prod(shape) * header.dtype.itemsize, self._infos[name]
            if header.dtype.kind not in kinds or header.shape != shape:
                raise UserError(f"{self.where}: {name} is {header.dtype} {list(header.shape)}, not {list(shape)}")
            if size > max(_LARGE, _MOST_PACKING * info.compress_size):
                raise UserError(f"{self.where}: {name} unpacks from {info.compress_size} bytes to {size}: not read")
            array = np.frombuffer(self._exactly(stream, name, size), header.dtype)
            if self._read(stream, name, 1):
                raise UserError(f"{self.where}: {name} has more bytes than its shape {list(shape)}")
        return array.reshape(shape, order="F" if header.by_columns else "C")

    def text(self, name: str, most: int) -> str:
        """A text of so many characters at most. Raises UserError as `read` does."""
        header = self.header(name)
        if header.dtype.itemsize > 4 * most:
            raise UserError(f"{self.where}: {name} has more than {most} characters")
        with self._damage(name):  # NumPy refuses numbers that are no characters
            return str(self.read(name, "U", ()))

    def rows(self, name: str, shape: tuple[int, ...], batch: int) -> Iterator[np.ndarray]:
        """An array of bytes of this shape, so many rows at a time. Raises UserError as `read` does."""
        with self._open(name) as stream:
            if self._header(stream, name).by_columns:
                raise UserError(f"{self.where}: {name} is stored by columns: save np.ascontiguousarray of it")
            for start in range(0, shape[0], batch):
                some = (min(batch, shape[0] - start), *shape[1:])
                yield np.frombuffer(self._exactly(stream, name, math.prod(some)), np.uint8).reshape(some)

    def _open(self, name: str) -> IO[bytes]:
        info = self._infos[name]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise UserError(
                f"{self.where}: {name} is packed in another way than np.savez_compressed does, or encrypted"
            )
        with self._damage(name):
            return self._archive.open(info)

    def _header(self, stream: IO[bytes], name: str) -> Header:
        try:
            header = header_of(cast(BinaryIO, stream), name, self._infos[name].file_size)
        except ValueError as error:
            raise UserError(f"{self.where}: {error}") from error
        if header.dtype.kind not in "fiuU" or header.dtype.shape:
            raise UserError(f"{self.where}: {name} is {header.dtype}: numbers are needed")
        return header

    def _read(self, stream: IO[bytes], name: str, size: int) -> bytes:
        with self._damage(name):
            return stream.read(size)

    def _exactly(self, stream: IO[bytes], name: str, size: int) -> bytes:
        data = self._read(stream, name, size)
        if len(data) < size:
            raise UserError(f"{self.where}: {name} is cut short")
        return data

    @contextlib.contextmanager
    def _damage(self, what: str) -> Iterator[None]:
        """A context in which what is damaged is one line."""
        try:
            yield
        except UserError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.where}: {shown(what)} is damaged, or cut short ({reason}): fetch it again"
            ) from error
