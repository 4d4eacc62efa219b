"""Where the members of a tar file are, without trusting its headers, and only of a file that is whole."""

import contextlib
import io
import os
import tarfile
from collections.abc import Generator, Iterator
from typing import BinaryIO

from sid_jax.errors import UserError

_MOST_HEADER = 2**20  # bytes of the headers of one member: a long name, a list of holes
_MOST_PADDING = 2**24  # bytes of zeros after the end; tar pads to a record, of 10 KB unless told otherwise
_BLOCK = tarfile.BLOCKSIZE


def members_of(file: BinaryIO, name: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The name of each regular member of a tar file, and where its content begins and how large it is.

    Members that are no regular files, or have holes, are left out, since they have no content of their own. Tar files
    that were joined one after the other are read as one.

    Args:
      file: from its beginning.
      name: of the file, for messages.

    Raises:
      UserError: it is no tar file, is compressed, damaged, or ends before its end mark, as a file that is cut short
        between two members does.
      OSError: it can't be read.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(_BLOCK)
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")):
        raise _not_whole(name, "it is compressed: decompress it, as a compressed one has no offsets")
    position = 0
    while position < size:
        end = yield from _members_until_the_end_mark(file, position, size, name)
        position = _after_zeros(file, end, size, name)


def _members_until_the_end_mark(
    file: BinaryIO, position: int, size: int, name: str
) -> Generator[tuple[str, tuple[int, int]], None, int]:
    """Yields as `members_of` does; returns where the blocks of zeros begin that mark an end."""
    headers = _Headers(file, name)
    file.seek(position)
    with _damage_named(name):
        headers.left = _MOST_HEADER
        tar = _ForgetfulTarFile(fileobj=headers, mode="r")
    while True:
        with _damage_named(name):
            headers.left = _MOST_HEADER
            member = tar.next()
        if member is None:
            return tar.offset
        if member.size < 0:
            raise _not_whole(name, "a size below 0")
        if member.isreg() and not member.issparse():
            if member.offset_data + member.size > size:
                raise _not_whole(name, "unexpected end of data")
            yield member.name, (member.offset_data, member.size)
        tar.members = []  # millions of headers would take gigabytes


@contextlib.contextmanager
def _damage_named(name: str) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError):
        raise
    except tarfile.TarError as error:
        raise _not_whole(name, str(error)) from error
    except Exception as error:  # tarfile raises nearly anything for damaged headers
        raise _not_whole(name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _after_zeros(file: BinaryIO, end: int, size: int, name: str) -> int:
    """Where zeros end that begin with a block of them at `end`, which is the end of a tar file."""
    file.seek(end)
    data = file.read(_MOST_PADDING)
    zeros = len(data) - len(data.lstrip(b"\0"))
    if not data or (zeros == len(data) < _BLOCK):
        raise _not_whole(name, "it ends without an end mark: it is cut short")
    if zeros < _BLOCK:
        raise _not_whole(name, f"damaged at byte {end}")
    if zeros == len(data) and end + zeros < size:
        raise _not_whole(name, f"{size - end} bytes after its end mark, of which the first {zeros} are zeros")
    return size if zeros == len(data) else end + zeros // _BLOCK * _BLOCK


def _not_whole(name: str, reason: str) -> UserError:
    return UserError(f"{name} is not a whole tar file ({reason})")


class _ForgetfulTarFile(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # every header that has been read, to be emptied


class _Headers(io.RawIOBase):
    """A file of which tarfile reads headers, and no more of each than is reasonable, whatever size they state."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.left = 0  # bytes that may be read for this member

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise _not_whole(self._name, f"a header of more than {_MOST_HEADER} bytes at byte {self._file.tell()}")
        self.left -= max(size, 1)  # reading at the end counts too, as a list of holes may have no end
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
