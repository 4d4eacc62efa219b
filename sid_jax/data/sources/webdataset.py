"""WebDataset: tar files in which the members of one stem are a sample. Read in place, nothing is extracted."""

import logging
import os
from array import array
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from sid_jax.data.captions import MOST_BYTES as MOST_CAPTION
from sid_jax.data.captions import captions_in
from sid_jax.data.images import MOST_BYTES, SUFFIXES, Corrupted
from sid_jax.data.pairs import Pair
from sid_jax.data.sources.shards import find_shards
from sid_jax.data.sources.tar_members import members_of
from sid_jax.errors import UserError
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.files import is_remote
from sid_jax.runtime.storage.json_files import parse_json
from sid_jax.runtime.storage.small_files import open_regular

_CAPTION_KEYS = ("caption", "text")
_log = logging.getLogger(__name__)


class WebDataset:
    """Pairs of tar files: `a/0001.jpg` and `a/0001.txt` (or `a/0001.json` with a "caption") are one.

    Opening them reads the headers of all members, and notes where each is. Reading a pair then takes two reads at known
    offsets, in any order and from any thread. No file stays open, so that there may be any number of them.

    Args:
      pattern: a .tar file, or a pattern of them such as "shards/*.tar" or "shards/{0000..0127}.tar", on a disk.

    Raises:
      UserError: there is no such file; one is compressed, cut short or not a tar file, or has a member whose name leads
        out of it; or there is no pair in them.
    """

    classes = encoded = None

    def __init__(self, pattern: str) -> None:
        if is_remote(pattern):
            raise UserError(f"real.source {pattern}: tar files are read from a disk: copy them, or mount the bucket")
        self._shards = find_shards(pattern)
        self._sizes = []
        # Kept as arrays, because millions of tuples would take gigabytes.
        rows, is_json = array("q"), bytearray()
        for number, shard in enumerate(following(self._shards, len(self._shards), "opening", "tar files")):
            size, pairs = _pairs_of(shard)
            self._sizes.append(size)
            for image, caption, suffix in pairs:
                rows.extend((number, *image, *caption))
                is_json.append(suffix == ".json")
        if not rows:
            raise UserError(f"real.source {pattern}: no image with a caption of its name (.txt or .json) in it")
        self._where = np.frombuffer(rows, np.int64).reshape(-1, 5)
        self._is_json = is_json
        self.name = f"tar files {pattern}: {len(self._shards)} from {os.path.basename(self._shards[0])}"

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Pair:
        number, image_at, image_size, caption_at, caption_size = map(int, self._where[index])
        if image_size > MOST_BYTES or caption_size > MOST_CAPTION:
            raise Corrupted(f"larger than {MOST_BYTES} bytes, or a caption larger than {MOST_CAPTION}")
        shard = self._shards[number]
        try:
            with open_regular(shard) as file:
                if os.fstat(file.fileno()).st_size != self._sizes[number]:
                    raise UserError(f"{shard} is another file than when it was opened: start again")
                image = os.pread(file.fileno(), image_size, image_at)
                caption = os.pread(file.fileno(), caption_size, caption_at)
        except OSError as error:
            raise Corrupted(f"{shard} can't be read: {error.strerror or error}") from error
        if (len(image), len(caption)) != (image_size, caption_size):
            raise Corrupted(f"{shard} is cut short")
        try:
            if self._is_json[index]:
                captions = captions_in(parse_json(caption, "the JSON"), _CAPTION_KEYS)
            else:
                captions = (caption.decode("utf-8-sig"),)
        except (ValueError, UserError) as error:
            raise Corrupted(f"no caption: {error}") from error
        return Pair(image, tuple(text.strip() for text in captions))


_Place = tuple[int, int]  # where the content of a member begins, and its size


def _pairs_of(shard: str) -> tuple[int, Iterator[tuple[_Place, _Place, str]]]:
    """The size of a tar file; and the image, the caption and the suffix of the caption of each sample."""
    try:
        with open_regular(shard) as file:
            samples: dict[str, dict[str, _Place]] = {}
            for name, place in members_of(file, shard):
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts:
                    raise UserError(f"{shard}: member {name!r} leads out of the archive")
                stem, dot, suffix = path.name.partition(".")
                parts = samples.setdefault(str(path.with_name(stem)) if stem else name, {})
                parts[f"{dot}{suffix}".lower()] = place
            return os.fstat(file.fileno()).st_size, _complete(shard, samples)
    except OSError as error:
        raise UserError(f"{shard} can't be read: {error.strerror or error}") from error


def _complete(shard: str, samples: dict[str, dict[str, _Place]]) -> Iterator[tuple[_Place, _Place, str]]:
    left_out = 0
    for parts in samples.values():
        image = next((parts[suffix] for suffix in SUFFIXES if suffix in parts), None)
        caption = next((suffix for suffix in (".txt", ".json") if suffix in parts), None)
        if image and caption:
            yield image, parts[caption], caption
        else:
            left_out += image is not None
    if left_out:
        _log.warning("%s: %d images without a caption are left out", shard, left_out)
