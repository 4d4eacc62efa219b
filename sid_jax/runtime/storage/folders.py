"""Folders that appear whole or not at all."""

import contextlib
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from sid_jax.runtime.storage.files import naming


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A context with a new, empty folder, which takes the name and the place of `folder` when it ends without error.

    A process that is killed in such a context leaves files beside `folder`. They are removed first; a folder that it
    was about to replace comes back.
    """
    token = secrets.token_hex(4)
    new, old = (folder.with_name(f".{folder.name}.{token}.{suffix}") for suffix in ("partial", "replaced"))
    try:
        with naming(folder):
            clear_up(folder)
            new.mkdir(parents=True)
            yield new
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def clear_up(folder: Path) -> None:
    """Removes what a killed process has left beside `folder`; a folder that it was about to replace comes back."""
    for old in folder.parent.glob(f".{glob.escape(folder.name)}.????????.replaced"):
        if folder.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, folder)
    for new in folder.parent.glob(f".{glob.escape(folder.name)}.????????.partial"):
        shutil.rmtree(new)
