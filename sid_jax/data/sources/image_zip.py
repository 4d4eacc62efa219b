"""Images with class labels as EDM's tools pack them: a zip file or a folder with `dataset.json`."""

import hashlib
import logging
import os
from array import array
from typing import Any, Protocol

import numpy as np

from sid_jax.data.captions import Texts
from sid_jax.data.images import MOST_BYTES, SUFFIXES, Corrupted
from sid_jax.data.labels import NO_LABEL
from sid_jax.data.pairs import Pair
from sid_jax.data.sources.image_folder import existing_folder, walk
from sid_jax.data.sources.zip_members import Unusable, ZipMembers
from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import is_remote
from sid_jax.runtime.storage.json_files import parse_json
from sid_jax.runtime.storage.small_files import Unreadable, read_small_bytes, shown

LABELS = "dataset.json"
MOST_CLASSES = 2**24
_MOST_LABELS = 2**30  # bytes of their file: thirty million images
_log = logging.getLogger(__name__)


class ImageZip:
    """Images in the order of their names, each with its class.

    `dataset.json` is `{"labels": [["00000/img00000000.png", 6], ...]}`, a class for each image. Where its labels are
    null, or there is no such file, the images have none, and their label is -1.

    Args:
      path: a zip file on a disk, or a folder, local or gs://.
      class_folders: where there is no `dataset.json`, and several folders at the top, each of these is a class, in the
        order of their names; and names are sorted folder by folder.

    Attributes:
      classes: how many there are: the largest label and one; 0 where the images have none.

    Raises:
      UserError: no such file or folder, no image in it, or it is damaged; or `dataset.json` is not as above, or has no
        label for an image, or two.
    """

    encoded = None

    def __init__(self, path: str, *, class_folders: bool = False) -> None:
        self._files: _Files = _Zip(path) if path.endswith(".zip") else _Folder(path)
        where, names = f"real.source {shown(path)}", self._files.names
        images = (index for index, name in enumerate(names) if os.path.splitext(name)[1].lower() in SUFFIXES)
        key = (lambda index: names[index].split("/")) if class_folders else names.__getitem__
        self._order = array("q", sorted(images, key=key))
        if not self._order:
            raise UserError(f"{where}: no image in it ({', '.join(SUFFIXES)})")
        sorted_names = Texts(names[index] for index in self._order)
        labels = self._files.labels()
        self._labels = None if labels is None else _labels_of(labels, sorted_names, f"{where}: {LABELS}")
        if labels is None and class_folders:
            self._labels = _labels_by_folder(sorted_names, where)
        self.classes = 0 if self._labels is None else int(self._labels.max()) + 1
        digest = hashlib.sha256(b"" if self._labels is None else self._labels.tobytes())
        digest.update(self._files.fingerprint())
        first, last = sorted_names[0], sorted_names[-1]
        self.name = f"images in {path}: {first} to {last}, {self.classes} classes, {digest.hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Pair:
        label = NO_LABEL if self._labels is None else int(self._labels[index])
        return Pair(self._files.read(self._order[index]), (label,))


class _Files(Protocol):
    """Where the images are.

    names: of all files.
    """

    names: Texts

    def read(self, index: int) -> bytes:
        """The content of an image. Raises Corrupted where it can't be read."""
        ...

    def labels(self) -> bytes | None:
        """The content of `dataset.json`, if there is one."""
        ...

    def fingerprint(self) -> bytes:
        """What says, as far as it is known without reading them, which images they are."""
        ...


class _Zip:
    def __init__(self, path: str) -> None:
        if is_remote(path):
            raise UserError(f"real.source {path}: zip files are read from a disk: copy it, or mount the bucket")
        self._path = path
        self._members = ZipMembers(os.path.expanduser(path))
        self.names = self._members.names

    def read(self, index: int) -> bytes:
        try:
            return self._members.read(index, MOST_BYTES)
        except Unusable as error:
            raise Corrupted(f"{shown(self.names[index])}: {error}") from error

    def labels(self) -> bytes | None:
        index = next((index for index, name in enumerate(self.names) if name == LABELS), None)
        if index is None:
            return None
        try:
            return self._members.read(index, _MOST_LABELS)
        except Unusable as error:
            raise UserError(f"real.source {shown(self._path)}: {LABELS} can't be used: {error}") from error

    def fingerprint(self) -> bytes:
        return self._members.checksums.tobytes()


class _Folder:
    def __init__(self, path: str) -> None:
        self._folder = existing_folder(path)
        self.names = Texts(f"{parent}/{name}" if parent else name for parent, name in walk(self._folder))

    def read(self, index: int) -> bytes:
        try:
            return read_small_bytes(self._folder / self.names[index], MOST_BYTES)
        except Unreadable as error:
            raise Corrupted(str(error)) from error

    def labels(self) -> bytes | None:
        if LABELS not in self.names:
            return None
        try:
            return read_small_bytes(self._folder / LABELS, _MOST_LABELS)
        except Unreadable as error:
            raise UserError(f"real.source {error}") from None

    def fingerprint(self) -> bytes:
        return b""


def _labels_of(data: bytes, names: Texts, where: str) -> np.ndarray | None:
    """The label of each image, int32 `[N]`; None where they have none."""
    value = parse_json(data, where)
    listed = value.get("labels", "") if isinstance(value, dict) else ""
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise UserError(f'{where}: write {{"labels": [[name, class], ...]}}, or null in the place of the list')
    labels: dict[str, int] = {}
    for number, each in enumerate(listed):
        name, label = each if isinstance(each, list) and len(each) == 2 else (None, None)
        if not isinstance(name, str):
            raise UserError(f"{where}: entry {number} is {_shown(each)}: write [name, class]")
        if type(label) is not int or not 0 <= label < MOST_CLASSES:
            raise UserError(f"{where}: the label of {shown(name)!r} is {_shown(label)}: write a class, 0 or more")
        if name in labels:
            raise UserError(f"{where}: {shown(name)!r} is there twice")
        labels[name] = label
    without = next((name for name in names if name not in labels), None)
    if without is not None:
        raise UserError(f"{where}: it has no label for {shown(without)!r}")
    if len(labels) > len(names):
        missing = len(labels) - len(names)
        _log.warning("%s: %d of its %d images are not there; they are left out", where, missing, len(labels))
    return np.fromiter((labels[name] for name in names), np.int32, len(names))


def _labels_by_folder(names: Texts, where: str) -> np.ndarray | None:
    """The place of each image's first folder among all of those, int32 `[N]`; None where there is one at most."""
    folders = {name.partition("/")[0] if "/" in name else "" for name in names}
    if len(folders) < 2:
        return None
    if "" in folders:
        loose = next(name for name in names if "/" not in name)
        raise UserError(f"{where}: {shown(loose)!r} is in no folder of a class, as others are: move it into one")
    classes = {folder: number for number, folder in enumerate(sorted(folders))}
    return np.fromiter((classes[name.partition("/")[0]] for name in names), np.int32, len(names))


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
