"""The state of a measurement that was not finished, in a file: it is gone on from where that is of the same."""

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sid_jax.errors import UserError
from sid_jax.metrics.moments import Estimate
from sid_jax.runtime.storage.files import appearing_file, partial_of, write_whole
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.runtime.storage.small_files import Unreadable

MINUTES = 3.0  # between two times that the state is written

_ROWS = "rows_done"


def digest_of(key: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


class SavedMeasurement:
    """Files in a folder that belong to one measurement: its state, and in the end its values.

    Args:
      folder: of `--out`, on a disk; it is made.
      key: what the values depend on; another measurement has other files.
      minutes: between two times that the state is written.

    Raises:
      UserError: the folder can't be written to.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], minutes: float = MINUTES):
        self.digest = digest_of(key)
        self._key = dict(key)
        self._state = folder / f"state-{self.digest[:16]}.npz"
        self._values = folder / f"values-{self.digest[:16]}.json"
        self._minutes, self._written = minutes, time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {folder} can't be made: {error.strerror or error}") from error

    def values(self) -> dict[str, Estimate] | None:
        """Those of a measurement that was finished; None: it was not."""
        try:
            saved = read_json(self._values)
        except Unreadable as error:
            if error.missing:
                return None
            raise
        try:
            if saved["key"] != json.loads(json.dumps(self._key)):
                raise ValueError("another key")
            return {name: Estimate(*(_number(each[field]) for field in Estimate._fields))
                    for name, each in saved["values"].items()}  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self._values} is damaged ({error}): remove it to measure again") from error

    def state(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Rows done and arrays of a measurement that was not finished; None: there is none.

        Raises:
          UserError: the file is damaged.
        """
        if not self._state.exists():
            return None
        try:
            with np.load(self._state, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return int(arrays.pop(_ROWS)), arrays
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise self.damaged(error) from error

    def forget(self) -> None:
        """Removes what was saved, so that all is measured again."""
        self.drop_state()
        self._values.unlink(missing_ok=True)

    def damaged(self, reason: Exception) -> UserError:
        """The error of a state that can't be gone on from."""
        return UserError(f"{self._state} is damaged ({reason}): remove it to measure from the beginning")

    def due(self) -> bool:
        """Whether it is time to write the state."""
        return time.monotonic() - self._written >= 60 * self._minutes

    def save(self, rows: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the state, whole or not at all."""
        with appearing_file(self._state) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{**arrays, _ROWS: np.array(rows)})
        self._written = time.monotonic()

    def finish(self, values: Mapping[str, Estimate]) -> None:
        """Writes the values in the place of the state."""
        shown = {name: {field: _text(number) for field, number in each._asdict().items()}
                 for name, each in values.items()}  # fmt: skip
        write_whole(self._values, json.dumps({"key": self._key, "values": shown}, indent=1) + "\n")
        self.drop_state()

    def drop_state(self) -> None:
        """Removes the state, and what one that was killed as it wrote it has left."""
        for file in (self._state, partial_of(self._state)):
            file.unlink(missing_ok=True)


def _text(number: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(number) else float(number)


def _number(saved: float | None) -> float:
    return float("nan") if saved is None else float(saved)
