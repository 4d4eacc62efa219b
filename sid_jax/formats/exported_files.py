"""Which files of an exported folder an export wrote, and which a user put there, so that none of theirs is lost."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.formats.fingerprint import digest_of
from sid_jax.formats.hub import INDEX
from sid_jax.formats.marker import MARKER
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.json_files import read_json, write_json

LIST = "sid_jax_files.json"  # path in the folder to SHA-256, of all that an export wrote but the list itself

_AT_THE_TOP = (INDEX, MARKER, LIST, "README.md")
_FOLDERS = (
    "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "safety_checker",
    "feature_extractor", "image_encoder", "sid_scheduler",
)  # fmt: skip
_SUFFIXES = {
    "tokenizer": (".json", ".txt"),
    "tokenizer_2": (".json", ".txt"),
    "sid_scheduler": (".json", ".py"),
}
_OF_NETWORKS = (".json", ".safetensors")
_OF_OTHERS = (".bin", ".msgpack", ".pt", ".pth", ".ckpt")  # in pipelines that were written by others


def write_list(folder: Path) -> None:
    """Writes the list of the files in a folder, which an export has just made."""
    sizes = {name: (folder / name).lstat().st_size for name in _entries(folder)}
    names = following(sizes, sum(sizes.values()), "listing the files", "bytes", sizes.__getitem__)
    write_json(folder / LIST, {name: _digest(folder / name) for name in names})


def foreign(folder: Path, *, contents: bool = True) -> list[str]:
    """What of an exported folder is not as an export wrote it: files that it did not write, and those since changed.

    An export from before there was a list is known by the names that exports write.

    Args:
      folder: the export.
      contents: whether files are read; else those that were changed pass for unchanged.
    """
    listed = read_json(folder / LIST) if (folder / LIST).is_file() else None

    def is_ours(name: str) -> bool:
        if name == MARKER or _is_bytecode(name):
            return True
        if listed is None:
            return _is_of_a_pipeline(name)
        return name == LIST or (name in listed and (not contents or _is_same(folder / name, listed[name])))

    return [name for name in _entries(folder) if not is_ours(name)]


def shown(names: list[str], most: int = 3) -> str:
    """The first of some names, and how many there are besides; a folder of its own counts as one."""
    short = sorted({name if name.partition("/")[0] in _FOLDERS else name.partition("/")[0] for name in names})
    more = f" and {len(short) - most} more" if len(short) > most else ""
    return ", ".join(name[:200] for name in short[:most]) + more


def carry_over(old: Path, new: Path) -> None:
    """Takes what does not belong to a model, such as notes and `.git`, from a folder into the one that replaces it.

    Files of the new folder stay as they are. The others have then both names, so that none is lost whenever the process
    is killed.

    Raises:
      UserError: something can't be taken along.
    """
    listed: Mapping[str, object] = read_json(old / LIST) if (old / LIST).is_file() else {}
    for name in _entries(old):
        if name in listed or _is_bytecode(name) or _is_of_a_pipeline(name, _OF_OTHERS):
            continue
        source, target = old / name, new / name
        parents = [new / parent for parent in Path(name).parents]
        if any(os.path.lexists(parent) and not parent.is_dir() for parent in parents) or target.is_dir():
            raise UserError(f"{source}: the export has something else of this name; move it away")
        if os.path.lexists(target):
            continue
        for parent in reversed(parents):
            if not parent.exists():
                parent.mkdir()
                shutil.copystat(old / parent.relative_to(new), parent)
        _link(source, target)


def _entries(folder: Path) -> Iterator[str]:
    """Paths in a folder, with slashes: of all that is no folder, and of empty folders."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in sorted([*files, *links]):
            yield Path(parent, name).relative_to(folder).as_posix()
        if not files and not folders and Path(parent) != folder:
            yield Path(parent).relative_to(folder).as_posix()


def _is_of_a_pipeline(name: str, more: tuple[str, ...] = ()) -> bool:
    """Whether a file is where exports have theirs, and of their kind, or has one of `more` suffixes."""
    if name in _AT_THE_TOP:
        return True
    parts = name.split("/")
    if len(parts) != 2 or parts[0] not in _FOLDERS:
        return False
    return parts[1].endswith(_SUFFIXES.get(parts[0], _OF_NETWORKS) + more)


def _is_bytecode(name: str) -> bool:
    """Of the scheduler that is in the folder: Python writes it when the README's lines are run."""
    return name.startswith("sid_scheduler/__pycache__/")


def _is_same(file: Path, digest: object) -> bool:
    return stat.S_ISREG(file.lstat().st_mode) and _digest(file) == digest


def _digest(file: Path) -> str:
    return digest_of(file).hex()


def _link(source: Path, target: Path) -> None:
    """Gives what is at `source` a second name; where the file system can't, copies it."""
    mode = source.lstat().st_mode
    if stat.S_ISDIR(mode):
        target.mkdir()
        shutil.copystat(source, target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise UserError(f"{source}: can't be taken along ({error.strerror}); move it away") from error
        shutil.copy2(source, target, follow_symlinks=False)
