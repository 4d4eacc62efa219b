"""Pictures without captions or labels, as measurements read them: a folder, a zip, tar files, or a dataset of tfds."""

import hashlib
import os
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from etils import epath

from sid_jax.data.captions import Texts
from sid_jax.data.images import MOST_BYTES, SUFFIXES, Corrupted
from sid_jax.data.sources.image_folder import existing_folder, walk
from sid_jax.data.sources.shards import find_shards
from sid_jax.data.sources.tar_members import members_of
from sid_jax.data.sources.tfds import open_tfds
from sid_jax.data.sources.zip_members import Unusable, ZipMembers
from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import is_remote, on_disk
from sid_jax.runtime.storage.small_files import Unreadable, open_regular, read_small_bytes, shown

_OTHERS = (".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff")
_VERSION = re.compile(r"[0-9*]+(\.[0-9*]+)*")


class Pictures(Protocol):
    """Encoded pictures by index.

    Attributes:
      names: what each is called.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def read(self, index: int) -> bytes:
        """A picture's file. Raises Corrupted where it can't be read."""
        ...

    def digest(self) -> str:
        """Says which pictures they are, by their names and sizes; equal ones are almost surely the same."""
        ...


def open_pictures(place: str, what: str, data_dir: str = "") -> Pictures:
    """All pictures of a place.

    Those of folders and zips are in the natural order of their names, in which 2.png is before 10.png; those of tar
    files and datasets as they are there.

    Args:
      place: a folder, local or gs://, with folders in it; a .zip file; a .tar file or a pattern of them; or
        "tfds:NAME:SPLIT".
      what: begins the messages of errors, such as the flag that names the place.
      data_dir: of datasets; empty: the library's default.

    Raises:
      UserError: there is no such place, or no picture in it.
    """
    try:
        pictures = _opened(place, data_dir)
    except UserError as error:  # which names the key of a config
        raise UserError(str(error).replace("real.source", what)) from error
    if not pictures.names:
        raise UserError(f"{what} {shown(place)}: no image in it ({', '.join(SUFFIXES)})")
    return pictures


def _opened(place: str, data_dir: str) -> Pictures:
    if place.startswith("tfds:"):
        return _Dataset(place, data_dir)
    if place.endswith(".tar"):
        return _Shards(place)
    return _Zip(place) if place.endswith(".zip") else _Folder(place)


class _Folder:
    def __init__(self, place: str) -> None:
        self._folder = existing_folder(place)
        self.names = Texts(_in_order(f"{above}/{name}" if above else name for above, name in walk(self._folder)))

    def read(self, index: int) -> bytes:
        try:
            return read_small_bytes(self._folder / self.names[index], MOST_BYTES)
        except Unreadable as error:
            raise Corrupted(error.reason) from error

    def digest(self) -> str:
        return _digest(self.names, [_size(self._folder / name) for name in self.names])


class _Zip:
    def __init__(self, place: str) -> None:
        self._members = ZipMembers(str(on_disk(place, "real.source")))
        self.names = Texts(_in_order(self._members.names))
        places = {name: index for index, name in enumerate(self._members.names)}
        self._order = array("q", (places[name] for name in self.names))

    def read(self, index: int) -> bytes:
        try:
            return self._members.read(self._order[index], MOST_BYTES)
        except Unusable as error:
            raise Corrupted(str(error)) from error

    def digest(self) -> str:
        return _digest(self.names, [self._members.sizes[index] for index in self._order])


class _Shards:
    def __init__(self, place: str) -> None:
        on_disk(place, "real.source")
        self._shards = find_shards(place)
        # As arrays, because millions of tuples would take gigabytes.
        self._where, self._sizes = array("q"), array("q")
        self.names = Texts(self._pictures())

    def _pictures(self) -> Iterable[str]:
        for number, shard in enumerate(self._shards):
            try:
                with open_regular(shard) as file:
                    for name, (begin, size) in members_of(file, shard):
                        if _is_a_picture(name):
                            self._where.extend((number, begin))
                            self._sizes.append(size)
                            yield f"{os.path.basename(shard)}/{name}"
            except OSError as error:
                raise UserError(f"{shown(shard)} can't be read: {error.strerror or error}") from error

    def read(self, index: int) -> bytes:
        number, begin = self._where[2 * index : 2 * index + 2]
        size = self._sizes[index]
        if size > MOST_BYTES:
            raise Corrupted(f"{size} bytes are more than {MOST_BYTES}")
        try:
            with open_regular(self._shards[number]) as file:
                data = os.pread(file.fileno(), size, begin)
        except OSError as error:
            raise Corrupted(f"the file can't be read: {error.strerror or error}") from error
        if len(data) < size:
            raise Corrupted("the file has become shorter")
        return data

    def digest(self) -> str:
        return _digest(self.names, self._sizes)


class _Numbers(Sequence[str]):
    """Names of pictures that have none."""

    def __init__(self, begin: str, count: int) -> None:
        self._begin, self._count = begin, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return f"{self._begin} {range(self._count)[index]}"


class _Dataset:
    def __init__(self, place: str, data_dir: str) -> None:
        name, _, split = place.removeprefix("tfds:").rpartition(":")
        if not name or _VERSION.fullmatch(split):
            raise UserError(f"real.source {place}: write tfds:NAME:SPLIT, such as tfds:coco_captions:val+test")
        self._source = open_tfds(name, split, data_dir, "image")
        self.names = _Numbers(f"tfds:{self._source.dataset_info.full_name}:{split}", len(self._source))

    def read(self, index: int) -> bytes:
        data: bytes = self._source[index]["image"]
        return data

    def digest(self) -> str:
        return _digest([self.names[0]], [len(self.names)])


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(filter(_is_a_picture, names), key=natural_order)


def _is_a_picture(name: str) -> bool:
    """Whether a file is a picture, by its name.

    Raises:
      UserError: it is one of a format that is not read. Without it a measurement would be another one.
    """
    if os.path.basename(name).startswith("._"):  # what a Mac keeps beside a file of that name
        return False
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _OTHERS:
        raise UserError(f"{shown(name)}: pictures are read as PNG, JPEG or WebP: convert it, or move it away")
    return suffix in SUFFIXES


def natural_order(name: str) -> tuple[Any, ...]:
    """What sorts names as people count: folder by folder, and 2 before 10."""
    folders = tuple(
        tuple(int(part) if odd % 2 else part for odd, part in enumerate(re.split("([0-9]+)", folder)))
        for folder in name.split("/")
    )
    return folders, name


def _size(file: epath.Path) -> int:
    return -1 if is_remote(file) else os.stat(file).st_size  # asking a bucket for each takes too long


def _digest(names: Iterable[str], sizes: Iterable[int]) -> str:
    digest = hashlib.sha256()
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{size} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
