"""A folder of images, each with its caption in a text file beside it or in `metadata.jsonl`."""

import json
import logging
import os
from collections.abc import Iterator, Mapping

from etils import epath

from sid_jax.data.images import MOST_BYTES, SUFFIXES, Corrupted
from sid_jax.data.pairs import Pair
from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute, is_remote

_CAPTION_KEYS = ("text", "caption")
_log = logging.getLogger(__name__)


class ImageFolder:
    """Pairs of a folder, in the order of their names.

    Where the folder has a `metadata.jsonl`, each of its lines is `{"file_name": "a/b.jpg", "text": "..."}`, or has
    "caption" in the place of "text". Where it has none, each `name.jpg` has a `name.txt` beside it, in subfolders too.
    An image without a caption is left out.

    Args:
      path: local or gs://.

    Raises:
      UserError: no such folder, or nothing in it; a damaged metadata.jsonl, or one that names files outside.
    """

    encoded = None

    def __init__(self, path: str) -> None:
        self._folder = absolute(path)
        if not self._folder.is_dir():
            raise UserError(f"real.source {path} is not a folder (nor tfds:NAME, nor a .tar file)")
        metadata = self._folder / "metadata.jsonl"
        found: Mapping[str, str | None]
        found = self._of_metadata(metadata) if metadata.exists() else self._of_text_files()
        if not found:
            raise UserError(
                f"real.source {path}: no image with a caption: put NAME.txt beside NAME.jpg, or a metadata.jsonl"
            )
        self._images = sorted(found)
        self._captions = found
        self.name = f"images in {path}: {self._images[0]} to {self._images[-1]}"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Pair:
        name = self._images[index]
        caption = self._captions[name]
        file = self._folder / name
        try:
            if file.stat().length > MOST_BYTES:
                raise Corrupted(f"{file}: larger than {MOST_BYTES} bytes")
            if caption is None:
                caption = file.with_suffix(".txt").read_bytes().decode("utf-8-sig").strip()
            return Pair(file.read_bytes(), (caption,))
        except (OSError, UnicodeDecodeError) as error:
            raise Corrupted(f"{file}: {error}") from error

    def _of_text_files(self) -> dict[str, None]:
        """Names of images relative to the folder, without their captions, which are read when they are needed."""
        images, captions = [], set()
        for folder, name in _walk(self._folder):
            stem, suffix = os.path.splitext(name)
            relative = f"{folder}/{name}" if folder else name
            if suffix.lower() in SUFFIXES:
                images.append(relative)
            elif suffix == ".txt":
                captions.add(f"{folder}/{stem}" if folder else stem)
        found = [image for image in images if os.path.splitext(image)[0] in captions]
        if len(found) < len(images):
            _log.warning("%s: %d images without a caption are left out", self._folder, len(images) - len(found))
        return dict.fromkeys(found)

    def _of_metadata(self, metadata: epath.Path) -> dict[str, str]:
        """Names of images relative to the folder, and their captions."""
        found = {}
        for number, line in enumerate(metadata.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                name = record["file_name"]
                caption = next(record[key] for key in _CAPTION_KEYS if key in record)
                if not isinstance(name, str) or not isinstance(caption, str):
                    raise TypeError("not a string")
            except (ValueError, KeyError, TypeError, StopIteration):
                raise UserError(
                    f'{metadata} line {number}: needs the strings "file_name" and "text": {line[:80]!r}'
                ) from None
            if not self._is_inside(name):
                raise UserError(f"{metadata} line {number}: {name!r} is outside the folder")
            found[name] = caption
        return found

    def _is_inside(self, name: str) -> bool:
        if is_remote(self._folder):
            return not name.startswith("/") and ".." not in name.split("/")
        return (self._folder / name).resolve().is_relative_to(self._folder.resolve())


def _walk(folder: epath.Path, relative: str = "") -> Iterator[tuple[str, str]]:
    """(its folder, as a path relative to the first folder; its name) of every file. Links to folders are left alone."""
    for entry in sorted(folder.iterdir(), key=lambda path: path.name):
        if entry.is_dir():
            if is_remote(entry) or not os.path.islink(entry):
                yield from _walk(entry, f"{relative}/{entry.name}" if relative else entry.name)
        else:
            yield relative, entry.name
