"""Single files that a command is told to write: checked before the work, so that its result is not lost."""

import os
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute, is_remote, on_disk


def check_output(path: os.PathLike | str, *, makes_folders: bool = False) -> None:
    """Checks, as far as it can be known without writing, that a file can be written.

    Args:
      path: the file; of one in a bucket nothing can be known.
      makes_folders: whether missing folders around it will be made.

    Raises:
      UserError: it is a folder, its folder is not there, or one of the two can't be written to.
    """
    if is_remote(path):
        return
    file = Path(path).absolute()
    try:
        if file.is_dir():
            raise UserError(f"{path} is a folder: name a file in it")
        folder = file.parent
        while makes_folders and not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise UserError(f"{path}: no such folder")
        blocked = not os.access(file if file.exists() else folder, os.W_OK)
    except (OSError, ValueError) as error:  # a name that is too long, a NUL in it
        raise UserError(f"{os.fspath(path)[:200]!r} can't be written: {error}") from error
    if blocked:
        raise UserError(f"{path} can't be written: permission denied")


def check_new_file(path: str, flag: str) -> None:
    """Checks that a file on a disk can be made. Raises UserError where it can't, or is there already."""
    file = on_disk(path, flag)
    check_output(file)
    if os.path.lexists(file):
        raise UserError(f"{flag} {path} is there already: name another file, or remove it")


def write_output(path: str, text: str) -> None:
    """Writes the file. Raises UserError where that can't be."""
    try:
        absolute(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}") from error
