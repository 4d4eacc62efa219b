"""A list of a checkpoint's files with their sizes and CRC-32 sums, which is part of the checkpoint itself.

Orbax notices a file that is missing or cut short, but not one whose bits have changed: the values that it restores are
then silently others. The list is made when all files are written and before the checkpoint gets its name, so that
every checkpoint that is complete has one. The sums are computed in the thread that saves, by several threads of its
own, while the training goes on. Objects in a bucket are checked by the bucket itself when they are written and read;
there the list has sizes alone, since to read tens of gigabytes back for it would cost more than it tells.
"""

import concurrent.futures
import json
import os
import zlib
from collections.abc import Iterator

import orbax.checkpoint as ocp
from etils import epath

from sid_jax.runtime.storage.files import is_remote

ITEM = "manifest"
_FILE = "metadata"
_CHUNK = 4 << 20  # bytes
_THREADS = min(8, os.cpu_count() or 1)


class ManifestHandler(ocp.CheckpointHandler):
    """An item of a checkpoint that Orbax finalises after all others: give it as the last one."""

    def save(self, directory: epath.Path, args: "ManifestSave") -> None:
        """Nothing yet: the other items are still being written."""

    def restore(self, directory: epath.Path, args: "ManifestRestore") -> dict[str, list[int]]:
        """Relative path to size and, on a disk, sum."""
        return json.loads((directory / _FILE).read_text())

    def finalize(self, directory: epath.Path) -> None:
        """Writes the list of all that the other items have written."""
        checkpoint = directory.parent
        # Orbax adds to the files beside the items once more, after this.
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
    """Compares the files of a checkpoint, or of one of its items, with its list.

    Raises:
        ValueError: one of them is missing, or is not what was written; or there is no list.
    """
    checkpoint = epath.Path(checkpoint)
    try:
        expected = json.loads((checkpoint / ITEM / _FILE).read_text())
        wanted = {name: tuple(entry) for name, entry in expected.items() if name.startswith(item)}
    except FileNotFoundError:
        raise ValueError("it has no manifest") from None
    except (ValueError, TypeError, AttributeError):
        wanted = {}
    if not wanted:
        raise ValueError("its manifest is damaged")
    missing = sorted(name for name in wanted if not (checkpoint / name).is_file())
    if missing:
        raise ValueError(f"{len(missing)} of its {len(wanted)} files are missing, such as {missing[0]}")
    found = _describe(checkpoint, [checkpoint / name for name in wanted])
    for name, entry in wanted.items():
        if found[name][0] != entry[0]:
            raise ValueError(f"{name} has {found[name][0]} bytes and not {entry[0]}")
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
