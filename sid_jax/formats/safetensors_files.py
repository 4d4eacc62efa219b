"""Safetensors files of one network: found, checked by their headers, read and written one tensor at a time."""

import contextlib
import functools
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes "bfloat16" a type that numpy, and safetensors through it, knows)
import numpy as np
from safetensors import SafetensorError, safe_open

from sid_jax.errors import UserError
from sid_jax.formats.finite import is_finite
from sid_jax.formats.state_dict import Stored
from sid_jax.formats.weight_names import choose
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.json_files import loads, read_json, write_json
from sid_jax.runtime.storage.small_files import shown

SHARD_BYTES = 10 * 1000**3  # as in diffusers
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_NAMES = {code: name for name, code in _TYPES.items()}
# What these say is cast to float32 as it is read, as by PyTorch's libraries; nothing else ever meets them.
_CAST = {"F64": "float64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_SHARD = re.compile(r"[\w-][\w.-]{0,200}\.safetensors")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightFiles:
    """The tensors of one network: `files` in which they are, and `stored`, what the headers say of each.

    `where` is the file that error messages name: the only one, or the index of several.
    """

    where: Path
    files: tuple[Path, ...]
    stored: Mapping[str, Stored]

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Pairs of name and array, in the order of the files; each array is read when it is asked for."""
        for file in self.files:
            yield from _read_file(file, self.stored)


def open_weights(folder: Path, stem: str, variant: str = "") -> WeightFiles:
    """Finds `stem[.variant].safetensors`, or the index of its shards, in `folder` and reads the headers, no tensors.

    Raises UserError where there is no such file, or a file is damaged or a pickle.
    """
    where = find_weights(folder, stem, variant)
    files = (where,) if where.suffix == ".safetensors" else _shards(where)
    stored: dict[str, Stored] = {}
    for file in files:
        with _open(file) as handle:
            for name in handle.offset_keys():
                if name in stored:
                    raise UserError(f"{where}: tensor {name!r:.200} is in more than one of its files")
                entry = handle.get_slice(name)
                stored[name] = Stored(tuple(entry.get_shape()), _type_read(entry.get_dtype()))
    return WeightFiles(where, files, stored)


def find_weights(folder: Path, stem: str, variant: str = "") -> Path:
    """The file of weights in `folder`, or the index of its shards, as `weight_names.choose` chooses it.

    Raises UserError, saying what is there instead, where there is none.
    """
    try:
        names = {name for name in os.listdir(folder) if (folder / name).is_file()}
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror or error})") from error
    try:
        name, found = choose(names, stem, variant, str(folder))
    except UserError:
        for file in sorted(folder.glob("*.safetensors*")):
            if file.is_symlink() and not file.exists():
                to = shown(os.readlink(file))
                raise UserError(f"{file}: a link to {to}, where there is nothing; mend it or fetch the file") from None
        raise
    if found != variant:
        _say_once(
            f"{folder}: no weights of the variant {variant!r}, {name} is read"
            if variant
            else f"{folder}: its only weights, {name}, are read"
        )
    return folder / name


@functools.cache
def _say_once(text: str) -> None:
    """Files are opened for several purposes, and once is enough."""
    _log.warning(text)


def write_weights(
    folder: Path,
    stem: str,
    stored: Mapping[str, Stored],
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes `folder/stem.safetensors`, or numbered shards and their index where that exceeds `shard_bytes`.

    Args:
      folder: where to, an existing folder.
      stem: the file's name without its suffix.
      stored: shapes and types to write, in the order of `tensors`.
      tensors: pairs of name and array, fetched one at a time and cast to the type to write.
      shard_bytes: largest size of a file; a tensor larger than that has a file of its own.
    """
    shards = _split(stored, shard_bytes)
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    else:
        names = [f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(map(_bytes, stored.values()))
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / f"{stem}.safetensors.index.json", index)
    count = sum(math.prod(entry.shape) for entry in stored.values())
    shown = following(tensors, count, f"writing {stem}", "parameters", lambda written: written[1].size)
    with contextlib.closing(shown) as stream:
        for name, shard in zip(names, shards, strict=True):
            _write_file(folder / name, {tensor: stored[tensor] for tensor in shard}, stream)
        next(stream, None)  # so that the last one counts as written


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="numpy")
    except SafetensorError as error:
        raise UserError(
            f"{file}: {_why_not(file, error) or f'not a whole safetensors file ({error}); fetch or convert it again'}"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def _why_not(file: Path, error: Exception) -> str:
    """Why a file is not of the format, and what to do."""
    with file.open("rb") as f:
        start = f.read(FIRST_BYTES)
    if start.startswith((b"PK", b"\x80")):  # a zip archive, or a bare pickle
        return "a pickle, which is never read; convert it to safetensors"
    if known := what_it_is(start):
        return f"not a whole safetensors file, but {known}"
    return f"not a whole safetensors file ({error}); fetch or convert it again"


def _type_read(code: str) -> str:
    """The type in which a tensor of a file's type is read; types that no parameter has keep the file's name."""
    return "float32" if code in _CAST else _NAMES.get(code, code)


def _read_file(file: Path, stored: Mapping[str, Stored]) -> Iterator[tuple[str, np.ndarray]]:
    with _open(file) as handle, file.open("rb") as f:
        header = loads(f.read(int.from_bytes(f.read(8), "little")))
        start = f.tell()
        for name in handle.offset_keys():
            shape, dtype = stored[name]
            if dtype not in _TYPES:  # no parameter of a network
                yield name, handle.get_tensor(name)
                continue
            # The handle would map it, and the file's pages then stay in memory as long as it is open.
            f.seek(start + header[name]["data_offsets"][0])
            array = np.fromfile(f, _CAST.get(header[name]["dtype"], dtype), math.prod(shape))
            if array.size < math.prod(shape):
                raise UserError(f"{file}: has become shorter while it was read; fetch or convert it again")
            with np.errstate(all="ignore"):  # what becomes infinite is found below
                array = array.astype(dtype, copy=False)
            if not is_finite(array):
                raise UserError(
                    f"{file}: tensor {shown(name)} has values that are not finite (NaN, infinite or too large)"
                )
            yield name, array.reshape(shape)


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(n, str) for n in weight_map.values()):
        raise UserError(f"{index}: weight_map must be an object of tensor names to file names")
    files = []
    for name in sorted(set(weight_map.values())):
        file = index.parent / name
        if not _SHARD.fullmatch(name):
            raise UserError(f"{index}: {name[:300]!r} is not the name of a safetensors file in the same folder")
        files.append(file)
    missing = [file for file in files if not file.is_file()]
    if missing:
        single = index.with_name(index.name.split(".safetensors", 1)[0] + ".safetensors")
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        remedy = f"if the weights are in {single.name}, remove the index" if single.is_file() else "fetch it again"
        raise UserError(f"{missing[0]}: no such file{more}, though {index.name} lists it; {remedy}")
    return tuple(files)


def _bytes(stored: Stored) -> int:
    return math.prod(stored.shape) * np.dtype(stored.dtype).itemsize


def _split(stored: Mapping[str, Stored], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, entry in stored.items():
        if shards[-1] and size + _bytes(entry) > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += _bytes(entry)
    return shards


def _write_file(file: Path, stored: Mapping[str, Stored], stream: Iterator[tuple[str, np.ndarray]]) -> None:
    # safetensors' own writer takes all tensors at once; a header and the arrays after it is all there is to the format.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, entry in stored.items():
        start, end = end, end + _bytes(entry)
        header[name] = {"dtype": _TYPES[entry.dtype], "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("xb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for expected, entry in stored.items():
            name, array = next(stream)
            if name != expected or array.shape != entry.shape:
                raise ValueError(f"expected tensor {expected} {entry.shape}, got {name} {array.shape}")
            # Bytes, as the buffer protocol does not know bfloat16.
            f.write(np.ascontiguousarray(array.astype(entry.dtype, copy=False)).reshape(-1).view(np.uint8).data)
