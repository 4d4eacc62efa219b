"""Small files that a user or a stranger brings, read whole without trusting what they are."""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import is_remote

MOST_BYTES = 64 << 20  # a tokenizer's vocabulary is 1 MB, an index of 2,000 tensors 200 kB

_LONGEST_NAME = 300  # characters of a path in a message
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Unreadable(UserError):
    """A file that can't be read; the message is `PATH: REASON`, in one line.

    Attributes:
      reason: why.
      missing: whether there is no such file.
      folder: whether there is a folder in its place.
    """

    def __init__(self, path: os.PathLike | str, reason: str, *, missing: bool = False, folder: bool = False) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.reason, self.missing, self.folder = reason, missing, folder


def read_small_bytes(path: os.PathLike | str, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file, or of a link to one.

    A pipe, a device, a socket or a folder is refused without being opened, and never more than `most` bytes are read,
    whatever size the file system states.

    Args:
      path: local or gs://.
      most: bytes that the file may have.

    Raises:
      Unreadable: there is no such file, it is larger, is no regular file, or can't be read; or no file has such a name.
    """
    with _reasons(path):
        _check_size(path, _stated_size(path), most)
        with _opened(path) as file:
            data: bytes = file.read(most + 1)
    _check_size(path, len(data), most)
    return data


def read_small_text(path: os.PathLike | str, most: int = MOST_BYTES) -> str:
    """The content of a regular file of UTF-8 text, without its byte order mark. Arguments as of `read_small_bytes`.

    Raises:
      Unreadable: as `read_small_bytes` does, and where the file is not UTF-8.
    """
    data = read_small_bytes(path, most)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Unreadable(path, f"is not UTF-8 at line {line}: convert it to UTF-8") from None


def read_lines(path: os.PathLike | str, most: int) -> Iterator[tuple[int, bytes]]:
    """The number, from 1, and the content of each line of a regular file, of whatever size the file is.

    A line ends at a line feed and nowhere else, which is the rule of JSON Lines: a carriage return before it is white
    space to JSON, and other separators are part of a text.

    Args:
      path: local or gs://.
      most: bytes that a line may have.

    Raises:
      Unreadable: as `read_small_bytes` does, but for the size: a line is longer.
    """
    with _reasons(path), _opened(path) as file:
        number = 0
        while line := file.readline(most + 1):
            number += 1
            if len(line) > most:
                raise Unreadable(path, f"line {number} is too large: at most {most} bytes are read")
            yield number, line.removesuffix(b"\n")


def open_regular(path: os.PathLike | str) -> BinaryIO:
    """A regular file on a disk, or a link to one, opened for reading; it never waits for another process to write.

    Raises:
      OSError, ValueError: it can't be opened, or has no possible name.
      Unreadable: it is no regular file.
    """
    _check_kind(path, os.stat(path))  # before it is opened: opening some devices does something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, flags), "rb")  # noqa: SIM115 -- the caller closes it
    try:
        _check_kind(path, os.fstat(file.fileno()))  # another one may have taken the name meanwhile
    except UserError:
        file.close()
        raise
    return file


@contextlib.contextmanager
def reading_regular(path: os.PathLike | str) -> Iterator[BinaryIO]:
    """A context with a regular file on a disk, or what a link to one names, open for reading.

    Raises:
      Unreadable: there is no such file, it is no regular file, or it can't be read.
    """
    with _reasons(path):
        opened = open_regular(path)
    with opened as file:
        try:
            yield file
        except OSError as error:
            raise Unreadable(path, f"cannot be read ({error.strerror or error})") from error


def check_regular(path: os.PathLike | str) -> None:
    """Checks that a path on a disk is a regular file, a link to one, or not there.

    Raises:
      Unreadable: it is something else, such as a folder or a named pipe; or nothing can be told of it.
    """
    try:
        _check_kind(path, os.stat(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Unreadable(path, f"cannot be read ({error.strerror or error})") from error


def shown(path: os.PathLike | str) -> str:
    """A path as it may stand in a message: in one line, printable, and not endless."""
    text = os.fspath(path)
    text = text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    half = _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}[...]{text[-half:]} ({len(text)} characters)"


@contextlib.contextmanager
def _reasons(path: os.PathLike | str) -> Iterator[None]:
    """Turns what opening and reading a file raises into `Unreadable`."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise Unreadable(path, "no such file", missing=True) from None
    except OSError as error:
        raise Unreadable(path, f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a name with a NUL, or with half a surrogate pair
        raise Unreadable(path, f"no file can have this name ({error})", missing=True) from error
    except Exception as error:
        if not is_remote(path):
            raise
        # Each client of buckets has exceptions of its own, which have no class in common.
        reason = " ".join(str(error).split())[:200]
        raise Unreadable(path, f"cannot be read ({type(error).__name__}: {reason})") from error


def _opened(path: os.PathLike | str) -> Any:
    return epath.Path(path).open("rb") if is_remote(path) else open_regular(path)


def _stated_size(path: os.PathLike | str) -> int:
    if is_remote(path):
        return epath.Path(path).stat().length
    status = os.stat(path)
    _check_kind(path, status)
    return status.st_size


def _check_kind(path: os.PathLike | str, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        what = _KINDS.get(kind, "something else")
        raise Unreadable(path, f"is {what}, not a regular file", folder=kind == stat.S_IFDIR)


def _check_size(path: os.PathLike | str, size: int, most: int) -> None:
    if size > most:
        raise Unreadable(path, f"{size} bytes is too large: at most {most} are read")
