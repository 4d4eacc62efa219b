"""Paths as users write them, and files that a reader finds whole or not at all, on a disk or in a bucket."""

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TypeVar

from etils import epath

from sid_jax.errors import UserError

BUCKETS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
"""How the addresses of buckets begin, and the package that opens each."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FILE = "file://"
_AnyPath = TypeVar("_AnyPath", bound=PurePath)


def is_remote(path: os.PathLike | str) -> bool:
    """Whether the path is in a bucket (gs://, s3://), where files are replaced as a whole and can't be appended to."""
    text = os.fspath(path)
    return _SCHEME.match(text) is not None and not text.startswith(_FILE)


def absolute(path: os.PathLike | str) -> epath.Path:
    """The path, from the root of its disk or of its bucket: what every path of a user goes through.

    `~` is the user's home, and `file:///a/b` is `/a/b`.

    Raises:
      UserError: it is at an address that is no bucket, or in one, and what opens such buckets is not installed.
    """
    text = os.fspath(path)
    if not is_remote(text):
        # As text first: of a path with "://" in the middle, such as a prompt, epath makes a KeyError.
        return epath.Path(os.path.abspath(os.path.expanduser(text.removeprefix(_FILE))))
    scheme, _, rest = text.partition("://")
    if scheme not in BUCKETS:
        known = ", ".join(f"{name}://" for name in BUCKETS)
        raise UserError(f"{text}: of addresses only buckets can be opened ({known}): copy it, and name its path here")
    if not rest.strip("/"):
        raise UserError(f"{text}: it names no bucket: write {scheme}://BUCKET/PATH")
    if importlib.util.find_spec(BUCKETS[scheme]) is None:
        package = BUCKETS[scheme]
        raise UserError(f"{text} is in a bucket, which needs {package}: pip install {package}")
    return epath.Path(text)


def on_disk(path: os.PathLike | str, what: str) -> Path:
    """The absolute path of something that has to be on a disk.

    Args:
      path: as the user wrote it.
      what: begins the message of the error, such as "--out".

    Raises:
      UserError: it is in a bucket, or at another address.
    """
    if is_remote(path):
        raise UserError(f"{what} {os.fspath(path)} is in a bucket and must be on a disk: copy it, or mount the bucket")
    try:
        return Path(absolute(path))
    except ValueError as error:  # no file can have the name
        raise UserError(f"{what} {os.fspath(path)!r} can't be used: {error}") from error


@contextlib.contextmanager
def reaching(path: os.PathLike | str) -> Iterator[None]:
    """A context in which what a client of buckets raises is one line that names the path.

    Each client has exceptions of its own, of no common class: no credentials, no such bucket, no network. On a disk
    nothing is changed.

    Raises:
      UserError: the bucket can't be reached, or refuses.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{os.fspath(path)}: the bucket can't be used ({reason}): check its name, the network, and your login there"
        ) from error


def write_whole(path: os.PathLike | str, data: bytes | str) -> None:
    """Writes a file of which a reader, meanwhile or after a crash, finds the old content or the new one."""
    file = epath.Path(path)
    data = data.encode() if isinstance(data, str) else data
    with naming(path):
        if is_remote(path):
            file.write_bytes(data)
            return
        partial = partial_of(file)
        partial.write_bytes(data)
        partial.replace(file)


def partial_of(path: _AnyPath) -> _AnyPath:
    """The file beside `path` that becomes it when it is whole. A process that is killed may leave it behind."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def appearing_file(path: Path) -> Iterator[Path]:
    """A context with the name of a new file on a disk, which takes the place of `path` when it ends without error.

    A process that is killed in such a context leaves `partial_of(path)`, which the next one writes over.
    """
    partial = partial_of(path)
    try:
        with naming(path):
            yield partial
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: os.PathLike | str) -> Iterator[None]:
    """A context in which an error of the operating system that names no file names this one, as one of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def refuse_links_out(folder: epath.Path) -> None:
    """Checks that no symbolic link in a folder on a disk, or in a folder in it, leads out of the folder.

    What a run writes or deletes in its folder would be written or deleted elsewhere, and a folder that comes from
    somebody else may have been made for that.

    Raises:
      UserError: a link does.
    """
    if is_remote(folder):
        return
    root = os.path.realpath(folder)
    for parent in (root, *(entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))):
        for entry in os.scandir(parent):
            if entry.is_symlink() and not os.path.realpath(entry.path).startswith(root + os.sep):
                raise UserError(f"{entry.path} is a link out of {root}: remove it, or move what it leads to here")
