"""A file of a release, fetched once into the user's cache."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sid_jax.errors import UserError
from sid_jax.formats.fingerprint import digest_of
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.files import on_disk

CACHE = "SID_JAX_CACHE"
"""The environment variable that says where what is fetched is kept."""

_BLOCK = 1 << 20  # bytes
_PATIENCE = 60  # seconds without a byte


class Unfetched(Exception):
    """A file could not be fetched; the message is the reason."""


def cache_folder() -> Path:
    """Where what is fetched is kept, which need not exist.

    It is what `SID_JAX_CACHE` says, by default `sid_jax` in the user's cache (`XDG_CACHE_HOME`, else `~/.cache`).

    Raises:
      UserError: `SID_JAX_CACHE` is an address, or no path.
    """
    if named := os.environ.get(CACHE):
        return on_disk(named, CACHE)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sid_jax"


def fetch(url: str, file: Path, digest: str, most: int) -> None:
    """Fetches a file. Where that fails or something else comes, no file is left.

    Args:
      url: its address.
      file: where to; it is written over.
      digest: how its SHA-256 begins, in hexadecimal.
      most: bytes that it may have.

    Raises:
      Unfetched: the address can't be reached, or something else is there.
      UserError: it can't be written.
    """
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            found = _write(file, _blocks(answer, file.name, length or most, most))
        if not found.startswith(digest):
            raise Unfetched(f"{url} has a file of another SHA-256, {found}")
    except (OSError, ValueError, urllib.error.HTTPError) as error:  # ValueError: an impossible length
        file.unlink(missing_ok=True)
        raise Unfetched(f"{url}: {' '.join(str(error).split())[:300] or type(error).__name__}") from error
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def sha256_of(file: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
      UserError: it can't be read.
    """
    try:
        return digest_of(file).hex()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def _blocks(answer: BinaryIO, name: str, length: int, most: int) -> Iterator[bytes]:
    """What comes, as it comes, with the progress said."""

    def read() -> Iterator[bytes]:
        count = 0
        while block := answer.read(_BLOCK):
            count += len(block)
            if count > most:
                raise Unfetched(f"more than {most} bytes come, where {name} was expected")
            yield block

    yield from following(read(), length, f"fetching {name}", "bytes", len)


def _write(file: Path, blocks: Iterator[bytes]) -> str:
    """Writes a file and returns its digest."""
    digest = hashlib.sha256()
    try:
        opened = file.open("wb")
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror or error})") from error
    with opened:
        for block in blocks:
            digest.update(block)
            opened.write(block)
    return digest.hexdigest()
