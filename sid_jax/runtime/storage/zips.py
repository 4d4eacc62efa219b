"""Zip files that are written: whole or not at all, and the same bytes for the same content."""

import contextlib
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import appearing_file
from sid_jax.runtime.storage.sizes import sizes

_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # that the format has, for there is no time in the content
_UNIX = 3


@contextlib.contextmanager
def zip_appearing(path: Path, need: int) -> Iterator[zipfile.ZipFile]:
    """A context with a new zip file, whose members are stored and not packed; it takes its name when it ends well.

    Args:
      path: where to, on a disk.
      need: bytes that will be written, as far as they are known.

    Raises:
      UserError: there is too little room.
    """
    check_room(path.parent, need, path)
    with appearing_file(path) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as packed:
        yield packed


def check_room(folder: Path, need: int, what: Path) -> None:
    """Checks that so many bytes are free on the disk of a folder. Raises UserError where they are not."""
    free = shutil.disk_usage(folder).free
    if need > free:
        needed, there = sizes(need, free)
        raise UserError(f"{what} needs {needed}, and {there} are free there")


def member(name: str) -> zipfile.ZipInfo:
    """What a zip file says of a member, the same on every machine and at all times."""
    info = zipfile.ZipInfo(name, _FIRST_DAY)
    info.create_system, info.external_attr = _UNIX, 0o100644 << 16
    return info
