"""JSON: files that a user brings, read with errors that name the file; and text as diffusers writes it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sid_jax.errors import UserError

_LARGEST = 64 << 20  # bytes; a tokenizer's vocabulary is 1 MB, an index of 2,000 tensors 200 kB


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: the file is missing, too large or malformed, or holds something else.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise UserError(f"{path}: {size} bytes is too large for a JSON file of a model")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # malformed JSON, malformed UTF-8, nesting beyond all reason
        raise UserError(f"{path}: not valid JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `to_text(value)` to a file on a disk."""
    path.write_text(to_text(value), encoding="utf-8")


def to_text(value: Mapping[str, Any]) -> str:
    """The value as JSON with two spaces of indentation and sorted keys: equal values give equal text."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
