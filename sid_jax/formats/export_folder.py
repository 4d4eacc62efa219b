"""The folder of an export: it appears whole or not at all, and takes the place of nothing that is the user's."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sid_jax.errors import UserError
from sid_jax.formats.exported_files import carry_over, foreign, shown, write_list
from sid_jax.formats.local_paths import without_paths
from sid_jax.formats.marker import is_export
from sid_jax.runtime.storage.folders import appearing, clear_up


class Layout(NamedTuple):
    """A layout of folders.

    name: such as "a diffusers folder".
    another: what a folder of it has in it, such as "another pipeline".
    files: by which it is known, all of them.
    """

    name: str
    another: str
    files: tuple[str, ...]


@contextlib.contextmanager
def exported(folder: Path, layout: Layout, *, source: Path | None = None, overwrite: bool = False) -> Iterator[Path]:
    """A context with a new, empty folder, which takes the place of `folder` when it ends without error.

    Then its configurations name no path of this machine, and it has a list of its files.

    Args:
      folder: where to.
      layout: of what is written.
      source: a folder that is read from meanwhile.
      overwrite: replace a folder of the layout too that was not written here, or was changed since. What does not
        belong to a model, such as notes and `.git`, stays in it.

    Raises:
      UserError: `folder` is a link, a file, the current directory, or a folder with other things in it; or it can't be
        written.
    """
    folder = folder.expanduser().absolute()
    try:
        clear_up(folder)
        _check_target(folder, layout, source, overwrite)
        with appearing(folder) as new:
            yield new
            without_paths(new)
            write_list(new)
            _take_along(folder, new, overwrite)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from error


def _check_target(folder: Path, layout: Layout, source: Path | None, overwrite: bool) -> None:
    if folder.is_symlink():
        raise UserError(f"{folder}: a link; name the folder itself")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file of this name exists")
    if source is not None and folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise UserError(f"{folder}: the teacher {source} is there; choose another folder")
    if Path.cwd().resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{folder}: the current directory is there, and an export takes the place of the whole folder; "
            "name a folder in it, or run this elsewhere"
        )
    if folder.is_mount():
        raise UserError(f"{folder}: a disk is mounted there, whose place a folder can't take; name a folder in it")
    if not any(folder.iterdir()):
        return
    if is_export(folder):
        if not overwrite:
            _refuse(folder, foreign(folder))
        return
    if not all((folder / name).is_file() for name in layout.files):
        raise UserError(f"{folder}: not empty, and not {layout.name}; choose another")
    if not overwrite:
        raise UserError(f"{folder}: {layout.another} is there; choose another folder, or overwrite it")


def _take_along(folder: Path, new: Path, overwrite: bool) -> None:
    """Sees to it that nothing of the user's is in `folder` alone, also what came there while `new` was written."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if overwrite:
        carry_over(folder, new)
    else:
        _refuse(folder, foreign(folder, contents=False))


def _refuse(folder: Path, names: list[str]) -> None:
    if names:
        raise UserError(
            f"{folder}: {shown(names)} in it {'is' if len(names) == 1 else 'are'} not as an export wrote it; move what "
            "you need away, choose another folder, or --overwrite the model (files that are not a model's then stay)"
        )
