"""JSON: files that a user brings, read with errors that name the file; and text as diffusers writes it."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import naming
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.small_files import MOST_BYTES, read_small_bytes, shown

MOST_NESTED = 100  # lists and objects within each other
_NO_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^][{}"]++', re.DOTALL)
"""Texts between quotation marks, and all else that is no bracket."""
_AT_A_TIME = 2**20  # brackets: the counts of all at once would take far more memory than the text


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
        return loads(text, parse_constant=_constant)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({str(error).splitlines()[0]})") from error


def loads(text: bytes | str, **options: Any) -> Any:
    """The value of a text of JSON that anybody may have written.

    Python's parser calls itself for each level, and from Python 3.12 on it does not notice that a small stack ends. So
    levels are counted before.

    Args:
      text: what to parse, as bytes in UTF-8, with or without a byte order mark.
      **options: of `json.loads`.

    Raises:
      ValueError: the text is malformed JSON or UTF-8, has integers of thousands of digits, or more than `MOST_NESTED`
        levels.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    if text.count("[") + text.count("{") > MOST_NESTED and _is_deep(text):
        raise ValueError(f"more than {MOST_NESTED} levels of nesting")
    return json.loads(text, **options)


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


def _is_deep(text: str) -> bool:
    """Whether lists and objects are nested deeper than code that follows them one in the other should have to go."""
    brackets, level = np.frombuffer(_NO_BRACKETS.sub("", text).encode(), np.uint8), 0
    for start in range(0, len(brackets), _AT_A_TIME):
        some = brackets[start : start + _AT_A_TIME]
        levels = level + np.cumsum(np.where((some == ord("[")) | (some == ord("{")), 1, -1))
        if levels.max() > MOST_NESTED:
            return True
        level = levels[-1]
    return False
