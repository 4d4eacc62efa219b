"""What tells one file of weights from another, without reading all of it.

A teacher of SDXL has 7 GB to 14 GB, which a run would read at each start for a sum of all bytes. Read here are the size
of a safetensors file, its header, and of each tensor the beginning, the middle and the end, of which small tensors have
no more: some 30 MB of SDXL. Another seed, another training, another type, or a single layer that was replaced or
finetuned change that. A change of a few values within a large tensor does not, which no training makes. All other files
are read whole.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sid_jax.errors import UserError
from sid_jax.runtime.storage.json_files import loads

_BLOCK = 4096  # bytes


def fingerprint(files: Iterable[Path]) -> str:
    """Hexadecimal SHA-256 of what tells files from others, by their contents and not by their names or places.

    Raises:
      UserError: one can't be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            digest.update(_fingerprint(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def digest_of(path: Path) -> bytes:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def digest_of_tensors(tensors: Iterable[tuple[str, np.ndarray]]) -> str:
    """Hexadecimal SHA-256 of tensors with their names, types and shapes: the same whatever file they are from."""
    digest = hashlib.sha256()
    for name, array in tensors:
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        # As bytes: bfloat16 is no type that Python's buffers know.
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _fingerprint(path: Path) -> bytes:
    with path.open("rb") as file:
        blocks = _blocks(file) if path.suffix == ".safetensors" else None
        if blocks is None:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256()
        for start, length in blocks:
            file.seek(start)
            digest.update(file.read(length))
        digest.update(str(file.seek(0, 2)).encode())
        return digest.digest()


def _blocks(file: BinaryIO) -> list[tuple[int, int]] | None:
    """(start, length) of what is read of a safetensors file; None where it is none, and has to be read whole."""
    size = file.seek(0, 2)
    file.seek(0)
    header = int.from_bytes(file.read(8), "little")
    data = 8 + header
    if not 2 <= header <= min(size - 8, 100 << 20):  # the limit of safetensors
        return None
    try:
        entries = loads(file.read(header))
        spans = sorted(entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__")
        blocks = [(0, data)]
        for begin, end in spans:
            if not 0 <= begin <= end <= size - data:
                return None
            if end - begin <= 3 * _BLOCK:
                blocks.append((data + begin, end - begin))
            else:
                middle = (begin + end - _BLOCK) // 2
                blocks += [(data + at, _BLOCK) for at in (begin, middle, end - _BLOCK)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return blocks
