"""Members of a zip file, read in place and in any order, without trusting what its directory says of them."""

import os
import struct
import weakref
import zlib
from array import array
from collections.abc import Iterator
from typing import BinaryIO

from sid_jax.data.captions import Texts
from sid_jax.errors import UserError
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.small_files import open_regular, shown

_END, _END_64, _PLACE_OF_END_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_END_SIZE, _END_64_SIZE, _PLACE_SIZE, _ENTRY_SIZE, _HEADER_SIZE = 22, 56, 20, 46, 30
_MOST_COMMENT = 2**16
_MOST_DIRECTORY = 2**30  # bytes: some ten million members
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF_8 = 1, 1 << 11
_IN_64_BITS = 2**32 - 1  # stands in a field of 32 bits for a number that is in another place
_LONGEST_NAME = 4096


class Unusable(Exception):
    """A member that can't be read; the message says why."""


class ZipMembers:
    """The regular members of a zip file, in the order of its directory.

    Opening it reads the directory alone. Reading a member takes two reads at known offsets, from any thread.

    Args:
      path: of a file on a disk.

    Attributes:
      names: of the members.
      sizes, checksums: what the directory says of each: the bytes of its content, and their CRC-32.

    Raises:
      UserError: it is no zip file, is damaged or cut short; or two members have one name, or a member's name leads out
        of it, or its content is encrypted or packed in another way than by deflating.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file = open_regular(path)
            weakref.finalize(self, self._file.close)
            self._size = os.fstat(self._file.fileno()).st_size
            directory, count = _directory_of(self._file, self._size, shown(path))
        except (OSError, ValueError) as error:
            raise UserError(f"{shown(path)} can't be read: {getattr(error, 'strerror', None) or error}") from error
        # As arrays, because millions of objects would take gigabytes.
        self.sizes, self.checksums = array("q"), array("L")
        self._packed, self._begins, self._methods = array("q"), array("q"), bytearray()
        self.names = Texts(self._entries(directory, count))

    def read(self, index: int, most: int) -> bytes:
        """The content of a member.

        Args:
          index: of the member.
          most: bytes that it may have.

        Raises:
          Unusable: it has more, or is damaged.
        """
        size, packed = self.sizes[index], self._packed[index]
        if size > most or packed > most:
            raise Unusable(f"{max(size, packed)} bytes are more than {most}")
        try:
            header = os.pread(self._file.fileno(), _HEADER_SIZE, self._begins[index])
            if len(header) < _HEADER_SIZE or header[:4] != b"PK\3\4":
                raise Unusable("its header is damaged")
            name_size, extra_size = struct.unpack_from("<HH", header, 26)
            begin = self._begins[index] + _HEADER_SIZE + name_size + extra_size
            data = os.pread(self._file.fileno(), packed, begin)
        except OSError as error:
            raise Unusable(f"it can't be read: {error.strerror or error}") from error
        if len(data) < packed:
            raise Unusable("it is cut short")
        if self._methods[index] == _DEFLATED:
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = unpacking.decompress(data, size + 1)
            except zlib.error as error:
                raise Unusable(f"it is damaged: {error}") from error
        if len(data) != size or zlib.crc32(data) != self.checksums[index]:
            raise Unusable("its content is not what its checksum says")
        return data

    def _entries(self, directory: bytes, count: int) -> Iterator[str]:
        """The names; what else is known of each member is noted."""
        path, position, seen = shown(self._path), 0, set()
        for _ in range(count):
            entry = directory[position : position + _ENTRY_SIZE]
            if len(entry) < _ENTRY_SIZE or entry[:4] != b"PK\1\2":
                raise _not_whole(path, "its directory is damaged")
            flags, method = struct.unpack_from("<HH", entry, 8)
            checksum, packed, size, name_size, extra_size, comment_size = struct.unpack_from("<LLLHHH", entry, 16)
            begin = struct.unpack_from("<L", entry, 42)[0]
            position += _ENTRY_SIZE
            name = _decoded(directory[position : position + name_size], flags)
            extra = directory[position + name_size : position + name_size + extra_size]
            position += name_size + extra_size + comment_size
            if position > len(directory):
                raise _not_whole(path, "its directory is damaged")
            size, packed, begin = _in_64_bits(extra, (size, packed, begin))
            if name.endswith("/"):
                continue
            problem = _problem_of(name, flags, method)
            if name in seen:
                problem = "is there twice"
            elif begin + _HEADER_SIZE + packed > self._size or (method == _STORED and size != packed):
                problem = "is not where the directory says"
            if problem:
                raise UserError(f"{path}: member {shown(name)!r} {problem}")
            seen.add(name)
            self.sizes.append(size)
            self.checksums.append(checksum)
            self._packed.append(packed)
            self._begins.append(begin)
            self._methods.append(method)
            yield name
        if position != len(directory):
            raise _not_whole(path, f"its directory has more than the {count} members that it says")


def _directory_of(file: BinaryIO, size: int, path: str) -> tuple[bytes, int]:
    """The bytes of the directory, and how many members it has."""
    tail = os.pread(file.fileno(), _END_SIZE + _MOST_COMMENT, max(0, size - _END_SIZE - _MOST_COMMENT))
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < _END_SIZE:
        known = what_it_is(os.pread(file.fileno(), FIRST_BYTES, 0))
        raise UserError(f"{path} is {known}") if known else _not_whole(path, "it has no directory at its end")
    disk, first_disk, here, count, length, begin = struct.unpack_from("<HHHHLL", tail, place + 4)
    end = size - len(tail) + place
    if large := _large_directory(file, end):
        disk, first_disk, here, count, length, begin, end = large
    if disk or first_disk or here != count:
        raise _not_whole(path, "it is one of several parts")
    if begin + length != end or count * _ENTRY_SIZE > length:
        raise _not_whole(path, "its directory is not where its end says")
    if length > _MOST_DIRECTORY:
        raise UserError(f"{path}: a directory of {length} bytes is too large: at most {_MOST_DIRECTORY} are read")
    return os.pread(file.fileno(), length, begin), count


def _large_directory(file: BinaryIO, end: int) -> tuple[int, ...] | None:
    """The numbers of a directory that may be in 64 bits, and where it ends; None where there are only 32."""
    place = os.pread(file.fileno(), _PLACE_SIZE, max(0, end - _PLACE_SIZE))
    if len(place) < _PLACE_SIZE or place[:4] != _PLACE_OF_END_64:
        return None
    begin_of_end: int = struct.unpack_from("<Q", place, 8)[0]
    if begin_of_end > end:
        return None
    record = os.pread(file.fileno(), _END_64_SIZE, begin_of_end)
    if len(record) < _END_64_SIZE or record[:4] != _END_64:
        return None
    return *struct.unpack_from("<LLQQQQ", record, 16), begin_of_end


def _in_64_bits(extra: bytes, numbers: tuple[int, int, int]) -> tuple[int, ...]:
    """Size, packed size and begin of a member, of which those that 32 bits are too few for are in its extra field."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind != 1:
            continue
        found = list(numbers)
        for which, number in enumerate(numbers):
            if number == _IN_64_BITS and len(field) >= 8:
                found[which], field = int.from_bytes(field[:8], "little"), field[8:]
        return tuple(min(number, 2**62) for number in found)
    return numbers


def _decoded(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & _UTF_8 else "cp437", "surrogateescape" if flags & _UTF_8 else "strict")


def _problem_of(name: str, flags: int, method: int) -> str | None:
    if not name or len(name) > _LONGEST_NAME or "\0" in name:
        return "has no possible name"
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        return "leads out of the archive"
    if flags & _ENCRYPTED:
        return "is encrypted"
    if method not in (_STORED, _DEFLATED):
        return f"is packed by method {method}: pack it by storing or deflating"
    return None


def _not_whole(path: str, reason: str) -> UserError:
    return UserError(f"{path} is not a whole zip file ({reason})")
