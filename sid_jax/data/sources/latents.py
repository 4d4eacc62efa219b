"""A cache of latents: pairs whose images were encoded once, so that training needs no autoencoder.

It is a folder with `latents.npy` (`[N, h, w, C]`, float16), `captions.jsonl` (for each latent a line with its
conditions) and `cache.json`, which says what the latents are and is written last.
"""

import errno
import json
import math
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sid_jax.data.captions import MOST_BYTES as MOST_CAPTION
from sid_jax.data.captions import Texts, check_text
from sid_jax.data.images import Corrupted
from sid_jax.data.labels import NO_LABEL
from sid_jax.data.pairs import Encoded, Pair
from sid_jax.errors import UserError
from sid_jax.runtime.storage.arrays import header_of
from sid_jax.runtime.storage.folders import appearing
from sid_jax.runtime.storage.json_files import parse_json, read_json, write_json
from sid_jax.runtime.storage.small_files import open_regular, read_lines
from sid_jax.size import Resolution, size_of

_ABOUT, _LATENTS, _CAPTIONS = "cache.json", "latents.npy", "captions.jsonl"
_DTYPE = np.dtype(np.float16)
_MOST_LINE = 16 * MOST_CAPTION  # bytes; JSON spells some characters in 12


def is_cache(path: str) -> bool:
    """Whether the path is the folder of a cache that was completed."""
    try:
        return (Path(path) / _ABOUT).is_file()
    except (OSError, ValueError):  # it may not be looked at, or no file can have the name
        return False


class LatentCache:
    """Pairs of latents and conditions.

    Args:
      path: a folder on a disk.

    Attributes:
      encoded: what `write_cache` was told of the latents.
      classes: one more than the largest label; None where the conditions are captions.

    Raises:
      UserError: a file is missing or damaged.
    """

    def __init__(self, path: str) -> None:
        folder = Path(path)
        try:
            about = read_json(folder / _ABOUT)
            count, resolution, space = about.get("count"), about.get("resolution"), about.get("autoencoder")
            if type(count) is not int or not isinstance(space, str) or count < 1:
                raise ValueError(f"{_ABOUT} lacks count or autoencoder")
            size = size_of(resolution)
            self._conditions = Texts(_conditions_of(folder / _CAPTIONS))
            self.classes = _classes(self._conditions)
            self._file = open_regular(folder / _LATENTS)
            weakref.finalize(self, self._file.close)
            rows, self._shape, self._begin = _header(self._file)
            if len(self._conditions) != count or rows < count:
                raise ValueError(f"it has {rows} latents and {len(self._conditions)} lines of captions for {count}")
        except (UserError, OSError, ValueError) as error:
            raise UserError(f"{path} is not a whole cache of latents ({error}): write it anew") from error
        self.name = f"latents of {about.get('source')}, {count} at {size} px, {space}"
        self.encoded = Encoded(self._shape, size.plain, space)

    def __len__(self) -> int:
        return len(self._conditions)

    def __getitem__(self, index: int) -> Pair:
        # Read, not mapped: a disk that fails under a mapping ends the process without a word.
        size = math.prod(self._shape) * _DTYPE.itemsize
        try:
            data = os.pread(self._file.fileno(), size, self._begin + index * size)
        except OSError as error:
            raise Corrupted(f"the latent can't be read: {error.strerror or error}") from error
        if len(data) < size:
            raise Corrupted("the latent is cut short")
        latent = np.frombuffer(data, _DTYPE).reshape(self._shape).astype(np.float32)
        if not np.isfinite(latent).all():
            raise Corrupted("the latent is not finite")
        return Pair(latent, tuple(json.loads(self._conditions[index])))


def _conditions_of(captions: Path) -> Iterator[str]:
    """Each line of the captions, of which each is a list of conditions."""
    for number, line in read_lines(captions, _MOST_LINE):
        conditions = parse_json(line, f"{_CAPTIONS} line {number}")
        if not isinstance(conditions, list) or not conditions or {type(x) for x in conditions} not in ({str}, {int}):
            raise ValueError(f"{_CAPTIONS} line {number} is no list of captions or of labels")
        for condition in conditions:
            check_text(str(condition))
        yield line.decode("utf-8-sig")


def _classes(conditions: Texts) -> int | None:
    """How many classes labels are of; None where the conditions are captions."""
    if len(conditions) == 0 or isinstance(json.loads(conditions[0])[0], str):
        return None
    labels = [label for line in conditions for label in json.loads(line)]
    if any(type(label) is not int or label < NO_LABEL for label in labels):
        raise ValueError(f"{_CAPTIONS} has something else among its labels")
    return max(labels) + 1


def _header(file: BinaryIO) -> tuple[int, tuple[int, ...], int]:
    """What a file of latents is: how many there are, (h, w, C) of each, and the byte at which the first begins.

    Raises:
      ValueError: it is no file that `write_cache` has written, or is cut short.
    """
    shape, dtype, by_columns, begin = header_of(file, _LATENTS)
    if dtype != _DTYPE or by_columns or len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"{_LATENTS} holds {dtype} {shape}, not float16 [N, h, w, C]")
    return shape[0], tuple(shape[1:]), begin


def check_free(folder: Path, source: str) -> None:
    """Checks that a cache may be written to a folder: it is not there, empty, or holds a cache and nothing else.

    Args:
      folder: where to.
      source: the name of the images' source in a config.

    Raises:
      UserError: it holds something else, is no folder, is the images' own or one of those around it, or is the root of
        a disk.
    """
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: name another for the cache")
        if os.path.exists(source) and Path(source).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{folder} holds the images themselves: name another folder for the cache")
        others = sorted({entry.name for entry in folder.iterdir()} - {_ABOUT, _LATENTS, _CAPTIONS})
        if not others and not is_cache(str(folder)):
            others = sorted(entry.name for entry in folder.iterdir())
        if others:
            raise UserError(
                f"{folder} holds files that are no cache of latents, such as {others[0]}: name another folder"
            )
        if folder.is_mount():
            raise UserError(f"{folder} is the root of a disk: name a folder in it")
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} can't be written to: {error}") from error


def write_cache(
    folder: Path,
    batches: Iterator[tuple[np.ndarray, list[tuple[Any, ...]]]],
    most: int,
    *,
    source: str,
    autoencoder: str,
    resolution: Resolution,
) -> int:
    """Writes a cache, whole or not at all; what is in the folder is replaced.

    Args:
      folder: made if it is not there; `check_free` says whether it may be written to.
      batches: pairs of latents `[n, h, w, C]` and their conditions, n of them.
      most: room is taken for so many latents when the first come; there may be fewer.
      source: the name of the pairs.
      autoencoder: identifies the autoencoder.
      resolution: of the images.

    Returns:
      How many latents are in it.

    Raises:
      UserError: the folder can't be written to, has too little room, or there is no latent.
    """
    count, shape = 0, None
    try:
        with (
            appearing(folder) as new,
            open(new / _CAPTIONS, "w", encoding="utf-8") as lines,
            open(new / _LATENTS, "wb") as latents,
        ):
            for values, conditions in batches:
                if shape is None:
                    shape = values.shape[1:]
                    _write_header(latents, most, shape)
                    _take_room(latents, most * math.prod(shape) * _DTYPE.itemsize, folder)
                latents.write(np.ascontiguousarray(values, _DTYPE).tobytes())
                lines.writelines(json.dumps(each) + "\n" for each in conditions)
                count += len(values)
            if shape is None:
                raise UserError(f"{source}: no image can be used")
            latents.truncate()
            latents.seek(0)
            _write_header(latents, count, shape)
            # Closed here, as a disk may be full only then; and the folder appears when this block has ended.
            latents.close()
            lines.close()
            size = size_of(resolution).plain
            about = {"source": source, "autoencoder": autoencoder, "resolution": size, "count": count}
            write_json(new / _ABOUT, about)
    except OSError as error:
        raise UserError(f"{folder} can't be written to: {error.strerror or error}") from error
    return count


def _write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """Writes a header, whose length does not depend on the count."""
    header = {"descr": np.lib.format.dtype_to_descr(_DTYPE), "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _take_room(file: BinaryIO, size: int, folder: Path) -> None:
    """Takes the room on the disk for so many bytes from here on, so that it is not full hours later."""
    free = shutil.disk_usage(file.name).free
    if size > free:
        raise UserError(f"{folder}: the latents take {_mb(size)}, and {_mb(free)} are free there")
    file.flush()
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), file.tell(), size)
    except OSError as error:
        # Others say that this file system can't do it: then the room is taken as the latents are written.
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
