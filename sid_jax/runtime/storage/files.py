"""Files that a reader finds whole or not at all, on a disk or in a bucket."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator

from etils import epath

from sid_jax.errors import UserError


def is_remote(path: os.PathLike | str) -> bool:
    """Whether the path is in a bucket (gs://, s3://), where files are replaced as a whole and can't be appended to."""
    return "://" in os.fspath(path)


def absolute(path: os.PathLike | str) -> epath.Path:
    """The path, from the root of its disk or of its bucket.

    Raises:
      UserError: it is in a bucket, and what reads buckets is not installed.
    """
    if not is_remote(path):
        return epath.Path(path).expanduser().resolve()
    if os.fspath(path).startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{os.fspath(path)} is in a bucket, which needs gcsfs: pip install gcsfs")
    return epath.Path(path)


def write_whole(path: os.PathLike | str, data: bytes | str) -> None:
    """Writes a file of which a reader, meanwhile or after a crash, finds the old content or the new one."""
    file = epath.Path(path)
    data = data.encode() if isinstance(data, str) else data
    with naming(path):
        if is_remote(path):
            file.write_bytes(data)
            return
        partial = file.with_name(f".{file.name}.partial")
        partial.write_bytes(data)
        partial.replace(file)


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
