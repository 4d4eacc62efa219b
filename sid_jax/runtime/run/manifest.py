"""A list of a checkpoint's files with their sizes and CRC-32 sums, which is part of the checkpoint itself.

Orbax notices a file that is missing or cut short, but it restores other values, silently, from a file in which a bit
has changed. The list is made when all files are written and before the checkpoint gets its name, so that every complete
checkpoint has a list. The thread that saves computes the sums while the training goes on, with several threads of its
own. A bucket checks its objects itself when they are written and read; there the list has sizes alone, since reading
tens of gigabytes back would cost more than the sums tell.
"""

import concurrent.futures
import json
import os
import zlib
from collections.abc import Iterator

import orbax.checkpoint as ocp
from etils import epath

from sid_jax.runtime.storage.files import is_remote
from sid_jax.runtime.storage.json_files import loads
from sid_jax.runtime.storage.small_files import Unreadable, read_small_bytes

ITEM = "manifest"
_FILE = "metadata"
_CHUNK = 4 << 20  # bytes
_THREADS = min(8, os.cpu_count() or 1)


class ManifestHandler(ocp.CheckpointHandler):
    """Writes the list as an item of a checkpoint, the last one, which Orbax finalises after all others."""

    def save(self, directory: epath.Path, args: "ManifestSave") -> None:
        """Does nothing yet: the other items are still being written."""

    def restore(self, directory: epath.Path, args: "ManifestRestore") -> dict[str, list[int]]:
        """The list: relative path to size and, on a disk, sum."""
        return loads((directory / _FILE).read_text())

    def finalize(self, directory: epath.Path) -> None:
        """Writes the list of all that the other items have written."""
        checkpoint = directory.parent
        # Files beside the items are left out, since Orbax changes them once more after this.
        items = [entry for entry in sorted(checkpoint.iterdir()) if entry.is_dir() and entry.name != directory.name]
        files = [file for item in items for file in _files(item)]
        (directory / _FILE).write_text(json.dumps(_describe(checkpoint, files), indent=0))


@ocp.args.register_with_handler(ManifestHandler, for_save=True)
class ManifestSave(ocp.args.CheckpointArgs):
    """Asks for the list."""


@ocp.args.register_with_handler(ManifestHandler, for_restore=True)
class ManifestRestore(ocp.args.CheckpointArgs):
    """Reads the list."""


def verify(checkpoint: os.PathLike | str, item: str = "") -> None:
    """Compares the files of a checkpoint with its list.

    Args:
      checkpoint: its folder, local or gs://.
      item: the item whose files are compared; "": all files.

    Raises:
      ValueError: a file is missing, or is not what was written; or there is no list.
    """
    folder = epath.Path(checkpoint)
    try:
        expected = loads(read_small_bytes(folder / ITEM / _FILE))
        wanted = {name: (int(entry[0]), *entry[1:]) for name, entry in expected.items() if name.startswith(item)}
    except Unreadable as error:
        raise ValueError("it has no manifest" if error.missing else f"its manifest {error.reason}") from None
    except (ValueError, TypeError, AttributeError, IndexError):
        wanted = {}
    if not wanted:
        raise ValueError("its manifest is damaged")
    missing = sorted(name for name in wanted if not (folder / name).is_file())
    if missing:
        raise ValueError(f"{len(missing)} of its {len(wanted)} files are missing, such as {missing[0]}")
    for name, entry in wanted.items():  # before the sums, since a file may have become very large
        size = (folder / name).stat().length
        if size != entry[0]:
            raise ValueError(f"{name} has {size} bytes and not {entry[0]}")
    found = _describe(folder, [folder / name for name in wanted])
    for name, entry in wanted.items():
        if found[name] != entry:
            raise ValueError(f"{name} is not what was written: its checksum is another")


def _describe(checkpoint: epath.Path, files: list[epath.Path]) -> dict[str, tuple[int, ...]]:
    """Relative path to (size, CRC-32) or, in a bucket, (size,)."""
    names = [os.fspath(file.relative_to(checkpoint)) for file in files]
    if is_remote(checkpoint):
        return {name: (file.stat().length,) for name, file in zip(names, files, strict=True)}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(names, threads.map(_size_and_sum, files), strict=True))


def _size_and_sum(file: epath.Path) -> tuple[int, int]:
    size, total = 0, 0
    buffer = memoryview(bytearray(_CHUNK))
    with open(file, "rb", buffering=0) as f:
        while read := f.readinto(buffer):
            size, total = size + read, zlib.crc32(buffer[:read], total)
    return size, total


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry
