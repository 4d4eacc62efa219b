"""State dicts as `torch.save` writes them: a zip of one pickle and of the values of each storage, none compressed.

Before PyTorch 1.6 it wrote them as `legacy_storage` describes. The pickle is read by the interpreter of `opcodes`, so
nothing in it is executed. Networks that measure images, such as Inception, are published in these forms.
"""

import dataclasses
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes  # noqa: F401  (makes "bfloat16" a type that numpy knows)
import numpy as np

from sid_jax.formats.legacy_storage import BEGINS, places_of, read_pickles
from sid_jax.formats.opcodes import Allowed, Refused, Unexpected, interpret, shown
from sid_jax.formats.state_dict import Stored
from sid_jax.formats.torch_tensors import (
    PlacedTensors,
    Values,
    View,
    empty_dict,
    is_count,
    refusals,
    storage_of,
    tensor_rules,
)
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.small_files import reading_regular

SUFFIXES = (".pth", ".pt", ".bin")
"""Of the names of such files."""

_TYPES = {
    "torch.FloatStorage": "float32", "torch.HalfStorage": "float16", "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
}  # fmt: skip
_MOST_TENSORS, _MOST_ENTRIES = 20_000, 25_000
_LOCAL_HEADER = 30  # bytes, before the name and the extra field


class _Storage(NamedTuple):
    """A storage by its name in the zip."""

    key: str
    dtype: str
    numbers: int


class _Dict(dict[str, Any]):
    """An OrderedDict, which may be given attributes afterwards; of a state dict's none says anything of a tensor."""


def open_torch_file(file: Path, inside: str = "") -> PlacedTensors:
    """Opens a state dict; no tensor is read.

    Args:
      file: of a dict of tensors, or of one of such dicts, whose names then have dots.
      inside: the entry in which the state dict is, as "state_dict" in a checkpoint; what is beside it is left out,
        and in the form of old must not have tensors. Empty: the file has nothing else.

    Raises:
      UserError: there is no such file, or it is something else; one line with the file, the place and the reason.
    """
    with reading_regular(file) as opened, refusals(file):
        start = opened.read(FIRST_BYTES)
        if known := what_it_is(start):
            raise Unexpected(f"not a file of torch.save, but {known}")
        placed = (_of_old if start[2 : len(BEGINS)] == BEGINS[2:] else _of_zip)(opened, inside)
    stored = {name: Stored(view.size, view.storage.dtype) for name, (view, _) in placed.items()}
    return PlacedTensors(file, stored, placed)


def _of_zip(file: BinaryIO, inside: str) -> dict[str, tuple[View, Values]]:
    """The tensors of a zip, and where the values of each one's storage are."""
    entries = _entries(file)
    pickle = next((name for name in entries if name.rpartition("/")[2] == "data.pkl"), None)
    if pickle is None:
        raise Unexpected("no data.pkl in it, as files of torch.save have")
    begin, length = entries[pickle]
    value, end = interpret(file, _STATE_DICT, begin, begin + length)
    if end != begin + length:
        raise Refused(end, "bytes after the end of the pickle")
    return {name: (view, _values(view, entries, pickle)) for name, view in _views(_inside(value, inside))}


def _of_old(file: BinaryIO, inside: str) -> dict[str, tuple[View, Values]]:
    """The tensors of a file in the form of old, and where the values of each one's storage are."""
    size = file.seek(0, 2)
    value, keys, at = read_pickles(file, _STATE_DICT_OF_OLD, 0, size)
    views = dict(_views(_inside(value, inside)))
    storages: dict[str, _Storage] = {}
    for view in views.values():
        if storages.setdefault(view.storage.key, view.storage) != view.storage:
            raise Unexpected(f"two storages of the key {shown(view.storage.key)}")
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys) or set(keys) != storages.keys():
        raise Refused(at, "a list of other keys than those of its tensors")
    places = places_of(file, [storages[key] for key in keys], at, size)
    for view in views.values():
        view.check(view.storage.numbers)
    return {name: (view, places[view.storage.key]) for name, view in views.items()}


def _entries(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Where the entries of a zip are in the file: first byte and length."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError) as error:
        raise Unexpected(f"not a zip, or not a whole one ({error}); fetch it again") from error
    if len(infos) > _MOST_ENTRIES:
        raise Unexpected(f"{len(infos)} entries in the zip; at most {_MOST_ENTRIES} are read")
    if any(info.filename.endswith("/constants.pkl") for info in infos):
        raise Unexpected("a program of TorchScript, which is not read; a state dict is needed")
    size = file.seek(0, 2)
    found: dict[str, tuple[int, int]] = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Unexpected(f"{shown(info.filename)} is compressed or encrypted, as nothing is in files of torch.save")
        if not 0 <= info.header_offset <= size:
            raise Unexpected(f"{shown(info.filename)} is beyond the end of the file")
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
            raise Refused(info.header_offset, f"{shown(info.filename)} is not there")
        name, extra = struct.unpack("<HH", header[26:])
        begin = info.header_offset + _LOCAL_HEADER + name + extra
        if info.filename in found or begin + info.file_size > size:
            raise Refused(begin, f"{shown(info.filename)} is there twice, or beyond the end of the file")
        found[info.filename] = begin, info.file_size
    return found


def _views(value: Any) -> Iterator[tuple[str, View]]:
    """The tensors of a dict, or of the dicts in it, by name."""
    count = 0
    for name, each in _items(value):
        for more, view in _items(each) if isinstance(each, dict) else [("", each)]:
            count += 1
            if not isinstance(view, View) or count > _MOST_TENSORS:
                raise Unexpected(f"{shown(name)} is {shown(view)}, where a tensor is needed, or there are too many")
            yield f"{name}.{more}" if more else name, view


def _inside(value: Any, name: str) -> Any:
    """The value itself, or its entry of a name."""
    if not name:
        return value
    if not isinstance(value, dict) or name not in value:
        raise Unexpected(f"it has no entry {name!r}, in which a state dict was expected")
    return value[name]


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise Unexpected(f"it has {shown(value)}; a dict of tensors is needed")
    yield from value.items()


def _values(view: View, entries: Mapping[str, tuple[int, int]], pickle: str) -> Values:
    """Where the values of a tensor's storage are."""
    storage: _Storage = view.storage
    name = f"{pickle.removesuffix('data.pkl')}data/{storage.key}"
    begin, length = entries.get(name, (0, -1))
    if length != storage.numbers * np.dtype(storage.dtype).itemsize:
        raise Unexpected(f"{shown(name)} is missing, or does not have {storage.numbers} values of {storage.dtype}")
    view.check(storage.numbers)
    return Values(begin, storage.numbers, storage.dtype)


def _identified_of_old(value: Any) -> _Storage:
    if not isinstance(value, tuple) or value[5:] != (None,):
        raise Unexpected("a storage that is part of another")
    return _identified(value[:5])


def _identified(value: Any) -> _Storage:
    cls, key, numbers = storage_of(value, length=5)
    if cls not in _TYPES:
        raise Unexpected(f"a {cls}; {', '.join(_TYPES)} are read")
    if not is_count(numbers):
        raise Unexpected(f"a storage of {shown(numbers)} values")
    return _Storage(key, _TYPES[cls], numbers)


def _ordered(arguments: tuple[Any, ...]) -> _Dict:
    return _Dict(empty_dict(arguments))


def _ignore(value: Any, state: Any) -> None:
    """`_metadata`: versions of modules."""
    del value
    if not isinstance(state, dict):
        raise Unexpected(f"a state dict with {shown(state)}")


_STATE_DICT = Allowed(
    called={"collections.OrderedDict": _ordered, **tensor_rules(_Storage)},
    named=frozenset({*_TYPES, "torch.DoubleStorage"}),
    built={_Dict: _ignore},
    persistent=_identified,
    protocols=(2, 3, 4),
)
_STATE_DICT_OF_OLD = dataclasses.replace(_STATE_DICT, persistent=_identified_of_old)
