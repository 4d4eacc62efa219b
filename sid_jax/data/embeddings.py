"""Embeddings of prompts in a folder: one file for each array, mapped into memory, so that only rows in use are read.

`about.json` says what is in the folder; `NAME.bin` holds the rows of one array. The name of an array is its path in the
tree that was encoded, with dots.
"""

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401  (makes "bfloat16" a type that numpy knows)
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sid_jax.errors import UserError
from sid_jax.runtime.storage.folders import appearing
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.runtime.storage.sizes import sizes
from sid_jax.runtime.storage.small_files import open_regular

ABOUT = "about.json"

_NAME = re.compile(r"[A-Za-z0-9_.]+")


class Embeddings:
    """What prompts were encoded to; called with some of the prompts, it returns theirs.

    Args:
      folder: what `write_embeddings` has made.
      prompts: those that it was made of, in their order.

    Raises:
      UserError, OSError: the folder is not there, or not whole.
    """

    def __init__(self, folder: Path, prompts: Sequence[str]) -> None:
        about = read_json(folder / ABOUT)
        rows, arrays = about.get("rows"), about.get("arrays")
        if rows != len(prompts) or not isinstance(arrays, dict):
            raise UserError(f"{folder} is not the embeddings of {len(prompts)} prompts")
        self._rows = {prompt: row for row, prompt in enumerate(prompts)}
        self._arrays: dict[str, np.memmap] = {}
        for name, described in arrays.items():
            dtype, shape = _described(folder, name, described)
            with open_regular(folder / f"{name}.bin") as file:
                if os.fstat(file.fileno()).st_size != dtype.itemsize * math.prod((len(prompts), *shape)):
                    raise UserError(f"{folder / name}.bin has another size")
                self._arrays[name] = np.memmap(file, dtype, "r", shape=(len(prompts), *shape))

    def has(self, prompts: Sequence[str]) -> bool:
        """Whether all of these are among them."""
        return all(prompt in self._rows for prompt in prompts)

    def __call__(self, prompts: Sequence[str]) -> dict[str, Any]:
        """The trees that prompts were encoded to, stacked.

        Args:
          prompts: N of those that the folder was made of, in any order; one may come more than once.

        Returns:
          A tree of dicts with arrays `[N, ...]`.
        """
        rows = [self._rows[prompt] for prompt in prompts]
        return unflatten_dict({name: np.asarray(array[rows]) for name, array in self._arrays.items()}, sep=".")


def open_embeddings(folder: Path, prompts: Sequence[str]) -> Embeddings | None:
    """The embeddings in a folder; None where they are missing, or not whole. Arguments as those of `Embeddings`."""
    try:
        return Embeddings(folder, prompts)
    except (UserError, OSError):
        return None


def write_embeddings(folder: Path, batches: Iterable[dict[str, Any]], row_bytes: int, rows: int) -> None:
    """Writes a folder for `Embeddings`, whole or not at all; one that was there is replaced.

    Args:
      folder: where to.
      batches: trees of dicts with arrays `[B, ...]`, in the order of the prompts.
      row_bytes: bytes of one prompt's tree.
      rows: how many prompts there are.

    Raises:
      UserError: the disk can't be written to, or has too little room.
    """
    try:
        with appearing(folder) as new:
            free, need = shutil.disk_usage(new).free, row_bytes * rows
            if need > free:
                needed, there = sizes(need, free)
                raise UserError(f"{folder}: embeddings of {rows} prompts need {needed}, {there} are free there")
            _write(new, batches)
    except OSError as error:
        raise UserError(f"{folder}: embeddings can't be written ({error.strerror or error})") from error


def _write(folder: Path, batches: Iterable[dict[str, Any]]) -> None:
    rows, arrays = 0, {}
    with contextlib.ExitStack() as closing:
        files: dict[str, BinaryIO] = {}
        for batch in batches:
            flat = {name: np.asarray(array) for name, array in flatten_dict(batch, sep=".").items()}
            for name, array in flat.items():
                if name not in files:
                    files[name] = closing.enter_context((folder / f"{name}.bin").open("wb"))
                    arrays[name] = (array.dtype.name, array.shape[1:])
                # Viewed as bytes, since Python's buffer protocol has no bfloat16.
                files[name].write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            rows += len(next(iter(flat.values())))
    (folder / ABOUT).write_text(json.dumps({"rows": rows, "arrays": arrays}))


def _described(folder: Path, name: str, described: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The type and the shape of a row of an array, of what `about.json` says of it."""
    try:
        kind, shape = described
        dtype = np.dtype(kind)
        if not isinstance(kind, str) or dtype.name != kind or dtype.hasobject:
            raise TypeError
        if not _NAME.fullmatch(name) or not all(type(length) is int and length > 0 for length in shape):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / ABOUT}: {name!r} is no array") from error
    return dtype, tuple(shape)
