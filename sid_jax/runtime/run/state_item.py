"""The state as an item of a checkpoint, which Orbax writes into a folder of any name that it can write to."""

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from etils.epath.gpath import PosixGPath

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import is_remote


class StateHandler(ocp.PyTreeCheckpointHandler):
    """Orbax's handler of a tree, which looks for files by their names alone."""

    def finalize(self, directory: epath.Path) -> None:
        """Merges what the processes have written."""
        super().finalize(_LiteralPath(directory))

    def restore(self, directory: epath.Path, *arguments: Any, **options: Any) -> Any:
        """Reads the tree; arguments as of Orbax's."""
        return super().restore(_LiteralPath(directory), *arguments, **options)


@ocp.args.register_with_handler(StateHandler, for_save=True)
@dataclass
class StateSave(ocp.args.PyTreeSave):
    """Asks for the tree to be written."""


@ocp.args.register_with_handler(StateHandler, for_restore=True)
@dataclass
class StateRestore(ocp.args.PyTreeRestore):
    """Reads the tree, or a part of it."""


class _LiteralPath(PosixGPath):
    """A folder whose own name is no pattern when files are looked for in it.

    etils takes the whole path for a pattern. Below a folder `run[1]` Orbax would find nothing, below `run*` another
    run's files too, and would merge what it has found without a word.
    """

    def glob(self, pattern: str) -> "Iterator[_LiteralPath]":
        """The files in this folder whose names match; of `pattern`, only the last part is one."""
        folder, _, name = pattern.rpartition("/")
        below = self / folder
        entries = below.iterdir() if below.is_dir() else iter(())
        return (entry for entry in entries if fnmatch.fnmatchcase(entry.name, name))


def check_name(folder: epath.Path) -> None:
    """Refuses the few names of folders on a disk that TensorStore, which writes the arrays, can't write to.

    Raises:
      UserError: the path has a backslash, which TensorStore takes for a slash; a part that ends with `.__lock`, which
        it keeps for itself; or bytes that are not UTF-8.
    """
    if is_remote(folder):
        return
    path = os.fspath(folder)
    reason = ""
    if "\\" in path:
        reason = "a backslash in its path"
    elif any(part.endswith(".__lock") for part in folder.parts):
        reason = "a folder in its path whose name ends with .__lock"
    elif not path.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in path):
        reason = "bytes in its path that are not UTF-8"
    if reason:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise UserError(f"checkpoints can't be written to or read from {shown}: it has {reason}; rename that folder")
