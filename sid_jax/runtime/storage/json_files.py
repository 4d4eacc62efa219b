"""JSON: files that a user brings, read with errors that name the file; and text as diffusers writes it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import naming
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.small_files import MOST_BYTES, read_small_bytes, shown

MOST_NESTED = 100  # lists and objects within each other


def read_json(path: os.PathLike | str, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      path: local or gs://.
      most: bytes that the file may have.

    Raises:
      Unreadable: the file is missing, too large, no regular file, or can't be read.
      UserError: it is malformed, or holds something else.
    """
    data = read_small_bytes(path, most)
    try:
        value = parse_json(data, shown(path))
    except UserError as error:
        if known := what_it_is(data[:FIRST_BYTES]):
            raise UserError(f"{shown(path)}: not valid JSON, but {known}") from error
        raise
    if not isinstance(value, dict):
        raise UserError(f"{shown(path)}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_json(text: bytes | str, where: str) -> Any:
    """The value of a text of JSON.

    `Infinity`, which JSON has not, is taken, since diffusers writes it for fields of its schedulers. `NaN` is not.

    Args:
      text: what to parse, as bytes in UTF-8, with or without a byte order mark.
      where: begins the message of an error.

    Raises:
      UserError: the text is malformed, nested beyond all reason, or has a number of thousands of digits or a NaN.
    """
    try:
        value = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, parse_constant=_constant)
    except (ValueError, RecursionError) as error:  # malformed JSON or UTF-8, long integers, very deep nesting
        raise UserError(f"{where}: not valid JSON ({str(error).splitlines()[0]})") from error
    if _is_deep(value):
        raise UserError(f"{where}: not valid JSON here (more than {MOST_NESTED} levels of nesting)")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `to_text(value)` to a file on a disk."""
    with naming(path):
        path.write_text(to_text(value), encoding="utf-8")


def to_text(value: Mapping[str, Any]) -> str:
    """The value as JSON with two spaces of indentation and sorted keys: equal values give equal text."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("NaN is not a number")
    return float(name)


def _is_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than code that follows them one in the other should have to go."""
    level = [value]
    for _ in range(MOST_NESTED):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(x for x in each.values() if isinstance(x, dict | list))
            elif isinstance(each, list):
                inner.extend(x for x in each if isinstance(x, dict | list))
        if not inner:
            return False
        level = inner
    return True
