"""WebDataset: tar files in which the members of one stem are a sample. Read in place, nothing is extracted."""

import glob
import json
import logging
import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from sid_jax.data.images import MOST_BYTES, SUFFIXES, Corrupted
from sid_jax.data.pairs import Pair
from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import is_remote

_CAPTION_KEYS = ("caption", "text")
_log = logging.getLogger(__name__)


class WebDataset:
    """Pairs of tar files: `a/0001.jpg` and `a/0001.txt` (or `a/0001.json` with a "caption") are one.

    Opening them reads the headers of all members, and notes where each is. Reading a pair then takes two reads at known
    offsets, in any order and from any thread.

    Args:
      pattern: a .tar file, or a pattern of them such as "shards/*.tar", on a disk.

    Raises:
      UserError: there is no such file; one is compressed, cut short or not a tar file, or has a member whose name leads
        out of it; or there is no pair in them.
    """

    encoded = None

    def __init__(self, pattern: str) -> None:
        if is_remote(pattern):
            raise UserError(f"real.source {pattern}: tar files are read from a disk: copy them, or mount the bucket")
        shards = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
        if not shards:
            raise UserError(f"real.source {pattern}: there is no such file")
        self._files = [open(shard, "rb", buffering=0) for shard in shards]  # noqa: SIM115 -- they stay open
        rows, suffixes = [], []
        for number, shard in enumerate(shards):
            for image, caption, suffix in _pairs_of(shard):
                rows.append((number, *image, *caption))
                suffixes.append(suffix == ".json")
        if not rows:
            raise UserError(f"real.source {pattern}: no image with a caption of its name (.txt or .json) in it")
        # Kept as arrays, because millions of tuples would take gigabytes.
        self._where = np.array(rows, np.int64)
        self._is_json = np.array(suffixes, bool)
        self.name = f"tar files {pattern}: {len(shards)} from {os.path.basename(shards[0])}"

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Pair:
        shard, image_at, image_size, caption_at, caption_size = map(int, self._where[index])
        if max(image_size, caption_size) > MOST_BYTES:
            raise Corrupted(f"larger than {MOST_BYTES} bytes")
        descriptor = self._files[shard].fileno()
        image, caption = os.pread(descriptor, image_size, image_at), os.pread(descriptor, caption_size, caption_at)
        try:
            text = caption.decode("utf-8-sig")
            if self._is_json[index]:
                record = json.loads(text)
                text = next(record[key] for key in _CAPTION_KEYS if isinstance(record.get(key), str))
        except (ValueError, AttributeError, StopIteration) as error:
            raise Corrupted(f"no caption: {error or 'the JSON has no string caption or text'}") from error
        return Pair(image, (text.strip(),))


class _ForgetfulTarFile(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # every header that has been read, to be emptied


def _pairs_of(shard: str) -> Iterator[tuple[tuple[int, int], tuple[int, int], str]]:
    """((offset, size) of the image, (offset, size) of the caption, suffix of the caption) of each sample."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    size = os.path.getsize(shard)
    try:
        with _ForgetfulTarFile.open(shard, "r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise UserError(f"{shard}: member {member.name!r} leads out of the archive")
                if not member.isreg() or member.issparse():
                    continue  # links and devices have no content of their own
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                stem, dot, suffix = path.name.partition(".")
                parts = samples.setdefault(str(path.with_name(stem)) if stem else member.name, {})
                parts[f"{dot}{suffix}".lower()] = (member.offset_data, member.size)
                tar.members = []  # millions of headers would take gigabytes
    except tarfile.ReadError as error:
        hint = "; decompress it, as a compressed one has no offsets" if _is_compressed(shard) else ""
        raise UserError(f"{shard} is not a whole tar file ({error}){hint}") from error
    except OSError as error:
        raise UserError(f"{shard} can't be read: {error.strerror or error}") from error
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


def _is_compressed(shard: str) -> bool:
    with open(shard, "rb") as file:
        return file.read(4).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"))
