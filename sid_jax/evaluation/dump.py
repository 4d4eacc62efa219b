"""Generated images as files that clean-fid, torch-fidelity and other people's scripts read as they are."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sid_jax.errors import UserError
from sid_jax.evaluation.batch import Batch
from sid_jax.evaluation.transforms import threads
from sid_jax.runtime.devices import processes
from sid_jax.runtime.run.pictures import save_png
from sid_jax.runtime.storage.files import write_whole
from sid_jax.runtime.storage.json_files import read_json

CAPTIONS = "captions.txt"
_MARKER = "dump.json"  # says which measurement wrote the pictures
_PICTURE = re.compile(r"\d{6,}\.png")


class Dump:
    """Writes images as `000000.png`, `000001.png`, ..., and the prompts as `captions.txt`, one a line.

    Each process writes its own images. A measurement that is gone on with writes them over.

    Args:
      folder: on a disk that all processes share; it is made.
      digest: of the measurement.
      asked: what the images are of.

    Raises:
      UserError: the folder has pictures of something else, or can't be written to.
    """

    def __init__(self, folder: Path, digest: str, asked: Sequence[Any]):
        self._folder = folder
        if processes.is_first():
            self._begin(digest, asked)
        if jax.process_count() > 1:
            processes.wait_for_all("the folder of the images is there")

    def _begin(self, digest: str, asked: Sequence[Any]) -> None:
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            check_dump(folder, digest)
            if asked and isinstance(asked[0], str):
                write_whole(folder / CAPTIONS, "".join(f"{prompt}\n" for prompt in asked))
            write_whole(folder / _MARKER, json.dumps({"measurement": digest}) + "\n")
        except OSError as error:
            raise UserError(f"--dump {folder} can't be written to: {error.strerror or error}") from error

    def __call__(self, batch: Batch) -> None:
        """Writes this process' images of a batch."""
        list(threads().map(self._write, batch.local()))

    def _write(self, pair: tuple[int, np.ndarray]) -> None:
        row, image = pair
        save_png(image, self._folder / f"{row:06d}.png")


def has_begun(folder: Path) -> bool:
    """Whether a measurement has begun to write images there."""
    return (folder / _MARKER).exists()


def check_dump(folder: Path, digest: str = "") -> None:
    """Checks that a folder has no pictures, but for those of the measurement with this digest.

    Raises:
      UserError: it has some.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--dump {folder} is a file: name a folder")
    found = next((entry.name for entry in folder.iterdir() if _PICTURE.fullmatch(entry.name)), None)
    if found is None:
        return
    marker = folder / _MARKER
    own = read_json(marker).get("measurement") if marker.is_file() else None
    if own is None or (digest and own != digest):
        raise UserError(f"--dump {folder} has other pictures in it, such as {found}: name another folder")
