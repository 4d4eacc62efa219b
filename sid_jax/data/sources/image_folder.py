"""A folder of images, each with its caption in a text file beside it or in `metadata.jsonl`."""

import logging
import os
from array import array
from collections.abc import Iterator
from itertools import groupby

from etils import epath

from sid_jax.data.captions import MOST_BYTES as MOST_CAPTION
from sid_jax.data.captions import Texts, captions_in
from sid_jax.data.images import MOST_BYTES, SUFFIXES, Corrupted
from sid_jax.data.pairs import Pair
from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute, is_remote
from sid_jax.runtime.storage.json_files import parse_json
from sid_jax.runtime.storage.small_files import Unreadable, read_lines, read_small_bytes, read_small_text, shown

_CAPTION_KEYS = ("text", "caption")
_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes of a file's name and of a path; disks take no more
_log = logging.getLogger(__name__)


class ImageFolder:
    """Pairs of a folder, in the order of their names.

    Where the folder has a `metadata.jsonl`, each of its lines is `{"file_name": "a/b.jpg", "text": "..."}`, or has
    "caption" in the place of "text". An image with several captions has several lines, or a list of captions, or both.
    Where there is none, each `name.jpg` has a `name.txt` beside it, in subfolders too. An image without a caption is
    left out.

    Args:
      path: local or gs://.

    Raises:
      UserError: no such folder, or nothing in it; a damaged metadata.jsonl, or one that names files outside.
    """

    classes = encoded = None

    def __init__(self, path: str) -> None:
        self._folder = existing_folder(path)
        metadata = self._folder / "metadata.jsonl"
        self._captions: Texts | None = None
        if metadata.exists() or os.path.lexists(metadata):
            self._read_metadata(metadata)
        else:
            self._images = Texts(sorted(_images_with_texts(self._folder)))
        if not self._images:
            raise UserError(
                f"real.source {path}: no image with a caption: put NAME.txt beside NAME.jpg, or a metadata.jsonl"
            )
        self.name = f"images in {path}: {self._images[0]} to {self._images[-1]}"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Pair:
        file = self._folder / self._images[index]
        captions: tuple[str, ...]
        try:
            if self._captions is None:
                captions = (read_small_text(file.with_suffix(".txt"), MOST_CAPTION).strip(),)
            else:
                captions = tuple(self._captions[self._first[index] : self._first[index + 1]])
            return Pair(read_small_bytes(file, MOST_BYTES), captions)
        except Unreadable as error:
            raise Corrupted(str(error)) from error

    def _read_metadata(self, metadata: epath.Path) -> None:
        """Notes the names of images, relative to the folder, and their captions in the order of the lines."""
        names: list[str] = []

        def captions_of_all() -> Iterator[str]:
            for name, captions in _records(metadata):
                names.extend([name] * len(captions))
                yield from captions

        lines = Texts(captions_of_all())
        order = sorted(range(len(names)), key=names.__getitem__)
        self._captions = Texts(lines[line] for line in order)
        # The captions of the image at index i are those from _first[i] on, to _first[i + 1].
        self._first = array("q", [0])
        images = []
        for name, group in groupby(names[line] for line in order):
            images.append(name)
            self._first.append(self._first[-1] + sum(1 for _ in group))
        self._images = Texts(images)
        folder = "" if is_remote(metadata) else os.fspath(self._folder)
        absent = [name for name in images if folder and not os.path.exists(f"{folder}/{name}")]
        if images and len(absent) == len(images):
            raise UserError(f"{metadata}: none of its {len(images)} images is there, such as {shown(absent[0])}")
        if absent:
            _log.warning(
                "%s: %d of its %d images are not there, such as %s; they are skipped and counted as corrupted",
                metadata, len(absent), len(images), shown(absent[0]),
            )  # fmt: skip


def existing_folder(path: str) -> epath.Path:
    """The folder that a path names. Raises UserError where there is none."""
    try:
        folder = absolute(path)
        is_folder = folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # no folder can have the name, or links lead in a circle
        raise UserError(f"real.source {shown(path)} can't be opened: {error}") from None
    if not is_folder:
        raise UserError(f"real.source {shown(path)} is not a folder (nor tfds:NAME, nor a .tar or .zip file)")
    return folder


def _records(metadata: epath.Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The name of an image and its captions, for each line of a `metadata.jsonl`."""
    folder = None if is_remote(metadata) else _RealFolder(metadata.parent)
    for number, line in read_lines(metadata, MOST_CAPTION):
        if not line.strip():
            continue
        where = f"{metadata} line {number}"
        try:
            record = parse_json(line, where)
            captions = captions_in(record, _CAPTION_KEYS)
            if not isinstance(name := record.get("file_name"), str):
                raise ValueError('it has no string "file_name"')
        except (ValueError, UserError) as error:
            reason = str(error).removeprefix(f"{where}: ")
            text = line[:80].decode(errors="replace")
            raise UserError(f'{where}: needs the strings "file_name" and "text": {text!r} ({reason})') from None
        if not _is_a_name(name):
            raise UserError(f"{where}: no image can have the name {shown(name)!r}")
        if not (folder.holds(name) if folder else not name.startswith("/") and ".." not in name.split("/")):
            raise UserError(f"{where}: {shown(name)!r} is outside the folder")
        yield name, captions


def _is_a_name(name: str) -> bool:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    longest = max(map(len, encoded.split(b"/")))
    return b"\0" not in encoded and bool(encoded) and longest <= _LONGEST_NAME and len(encoded) < _LONGEST_PATH


class _RealFolder:
    """A folder on a disk, without links in its path."""

    def __init__(self, folder: epath.Path) -> None:
        self._root = os.path.realpath(folder)
        self._real = {"": self._root}  # of a folder that images are in: looked up once, not for each of millions

    def holds(self, name: str) -> bool:
        """Whether a name relative to the folder leads to a place in it, links followed."""
        parent, last = os.path.split(name)
        if parent not in self._real:
            self._real[parent] = os.path.realpath(os.path.join(self._root, parent))
        path = os.path.join(self._real[parent], last)
        if last in ("", ".", "..") or os.path.islink(path):
            path = os.path.realpath(path)
        return path.startswith(os.path.join(self._root, ""))


def _images_with_texts(folder: epath.Path) -> list[str]:
    """Names of images relative to the folder, without their captions, which are read when they are needed."""
    images, captions = [], set()
    for parent, name in walk(folder):
        stem, suffix = os.path.splitext(name)
        relative = f"{parent}/{name}" if parent else name
        if suffix.lower() in SUFFIXES:
            images.append(relative)
        elif suffix == ".txt":
            captions.add(f"{parent}/{stem}" if parent else stem)
    found = [image for image in images if os.path.splitext(image)[0] in captions]
    if len(found) < len(images):
        _log.warning("%s: %d images without a caption are left out", folder, len(images) - len(found))
    return found


def walk(folder: epath.Path) -> Iterator[tuple[str, str]]:
    """(its folder, as a path relative to the first folder; its name) of every file. Links to folders are left alone."""
    waiting = [(folder, "")]  # not by recursion, as folders may be nested a thousand deep
    while waiting:
        parent, relative = waiting.pop()
        try:
            for entry in parent.iterdir():
                if not entry.is_dir():
                    yield relative, entry.name
                elif is_remote(entry) or not os.path.islink(entry):
                    waiting.append((entry, f"{relative}/{entry.name}" if relative else entry.name))
        except OSError as error:
            raise UserError(f"{shown(parent)}: the folder can't be read ({error.strerror or error})") from error
