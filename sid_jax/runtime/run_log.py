"""What a run writes into its workdir, beside its checkpoints:

    config.json        the resolved config
    metrics.jsonl      a JSON object a line: step, images, losses and the rest that follows from config and seed alone,
                       so that two runs of one config are equal to the byte; a value that is not finite is null
    timing.jsonl       the same steps: seconds since the process began, images/s since the line before
    samples/*.png      sample grids
    tensorboard/       all of it for TensorBoard

A run that goes on from step s first cuts the lines after s, so that no step is missing or there twice.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image
from tensorboardX import SummaryWriter

from sid_jax.errors import UserError
from sid_jax.runtime import config_file, processes
from sid_jax.runtime.files import absolute, is_remote, write_whole
from sid_jax.runtime.pictures import save_png

UPLOAD_SECONDS = 60  # a log file in a bucket is written anew at most this often, and at `flush`


def make_workdir(path: str) -> epath.Path:
    """Makes the folder if it is not there, and finds out whether it can be written to, by every process.

    Raises:
        UserError: it can't be made or written to, or a file is in its way, or hosts have folders of their own.
    """
    folder = absolute(path)
    probe = folder / f".writable.{jax.process_index()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"workdir {path} can't be made: a file is in its way") from None
    except OSError as error:
        raise UserError(f"workdir {path} can't be written to: {error.strerror or error}") from None
    if jax.process_count() > 1 and not processes.see_the_first(folder).all():
        raise UserError(f"workdir {path} is another folder on other hosts: use one in a bucket, or on a shared disk")
    return folder


class RunLog:
    """The writer of these files; on every process but the first its methods do nothing.

    Args:
        workdir: a folder that `make_workdir` has made.
        config: the resolved config.
        resumed_step: the step that the run goes on from; 0 if it begins.
    """

    def __init__(self, workdir: os.PathLike | str, config: ConfigDict, resumed_step: int = 0):
        self.workdir = epath.Path(workdir)
        self._writes = jax.process_index() == 0
        self._began = self._logged = time.perf_counter()
        self._images: int | None = None
        if not self._writes:
            return
        write_whole(self.workdir / "config.json", config_file.to_json(config))
        (self.workdir / "samples").mkdir(exist_ok=True)
        self._metrics = JsonLines(self.workdir / "metrics.jsonl", resumed_step)
        self._timing = JsonLines(self.workdir / "timing.jsonl", resumed_step)
        # TensorBoard hides what an earlier process wrote at the purged step and later.
        purged = resumed_step + 1 if resumed_step else None
        self._tensorboard = SummaryWriter(os.fspath(self.workdir / "tensorboard"), purge_step=purged)

    def metrics(
        self,
        step: int,
        images: int,
        values: Mapping[str, Any],
        timing: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the metrics of a step, and how fast the run is.

        Args:
            step: updates so far.
            images: generated images so far.
            values: name to scalar (number, numpy or jax array); only what config and seed determine.
            timing: further scalars that do depend on the machine, for timing.jsonl.
        """
        if not self._writes:
            return
        numbers = {name: _number(value) for name, value in sorted(values.items())}
        now = time.perf_counter()
        speeds = {"seconds": round(now - self._began, 3)}
        if self._images is not None:
            speeds["images_per_second"] = round((images - self._images) / max(now - self._logged, 1e-9), 3)
        speeds |= {name: _number(value) for name, value in sorted((timing or {}).items())}
        self._logged, self._images = now, images
        self._metrics.write({"step": step, "images": images, **numbers})
        self._timing.write({"step": step, "images": images, **speeds})
        for name, value in (numbers | {f"timing/{name}": value for name, value in speeds.items()}).items():
            if value is not None:
                self._tensorboard.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image.Image) -> epath.Path:
        """Writes `samples/<name>-<step>.png` and shows it in TensorBoard; returns the file's path."""
        path = self.workdir / "samples" / f"{name}-{step:06d}.png"
        if self._writes:
            save_png(image, path)
            self._tensorboard.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        return path

    def flush(self) -> None:
        """Makes all that was logged visible to readers; call it before a checkpoint is saved."""
        if self._writes:
            self._metrics.flush()
            self._timing.flush()
            self._tensorboard.flush()

    def close(self) -> None:
        """Flushes, and closes the files."""
        if self._writes:
            self._metrics.close()
            self._timing.close()
            self._tensorboard.close()


class JsonLines:
    """A file with a JSON object a line, appended to after the lines of steps beyond `last_step` are cut."""

    def __init__(self, path: os.PathLike | str, last_step: int):
        self._path = epath.Path(path)
        before = self._path.read_text() if self._path.exists() else ""
        kept = [line for line in before.splitlines(keepends=True) if _step(line) <= last_step]
        if "".join(kept) != before:
            write_whole(self._path, "".join(kept))
        self._lines = kept  # of use in a bucket only, where there is no appending
        self._uploaded = time.monotonic()
        self._file = None if is_remote(path) else self._path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds a line; the record has a `step`, and no value that is not finite."""
        line = json.dumps(record, allow_nan=False) + "\n"
        if self._file:
            self._file.write(line)
            self._file.flush()
            return
        self._lines.append(line)
        if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Uploads the file if it is in a bucket; on a disk each line is there at once."""
        if not self._file:
            write_whole(self._path, "".join(self._lines))
            self._uploaded = time.monotonic()

    def close(self) -> None:
        """Flushes, and closes the file."""
        self.flush()
        if self._file:
            self._file.close()


def _step(line: str) -> float:
    """The step of a line; infinity if the line is cut short, which only a crash after the last checkpoint causes."""
    if not line.endswith("\n"):
        return math.inf
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf


def _number(value: Any) -> int | float | None:
    """A scalar as JSON has it; a float32 becomes the float64 of the same value."""
    number = np.asarray(value).item()
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number
