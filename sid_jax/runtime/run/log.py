"""What a run writes into its workdir, beside its checkpoints:

    config.json        the resolved config
    metrics.jsonl      a JSON object a line: step, images, losses and what else follows from config and seed alone, so
                       that two runs of one config are equal to the byte; a value that is not finite is null
    timing.jsonl       the same steps: seconds since the process began; updates/s and images/s since the line before;
                       memory in use; how long a checkpoint took that was completed since the line before
    samples/*.png      sample grids
    tensorboard/       all of it for TensorBoard, and for Weights & Biases where the config names a project
    run.log            what the run has said, see `messages`

A run that goes on from step s first cuts the lines after s, so that no step is missing or there twice. While the disk
is full, lines wait until there is space, and a checkpoint waits for the lines before it.
"""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.memory import memory_in_use
from sid_jax.runtime.run.board import Board
from sid_jax.runtime.run.pictures import save_png
from sid_jax.runtime.run.tensorboard import TensorBoard
from sid_jax.runtime.run.wandb import WandbProject, WandbRun
from sid_jax.runtime.storage.append_file import AppendFile
from sid_jax.runtime.storage.files import absolute, refuse_links_out, write_whole
from sid_jax.runtime.storage.json_files import to_text

_log = logging.getLogger(__name__)


def make_workdir(path: str) -> epath.Path:
    """Makes a run's folder if it is not there, and checks that every process can write to it. All processes call it.

    Args:
      path: local or gs://.

    Returns:
      the folder's absolute path.

    Raises:
      UserError: the folder can't be made or written to, a file is in its way, a link in it leads out of it, or it is
        another folder on other hosts.
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
    if jax.process_count() > 1 and not processes.share_a_disk(folder).all():
        raise UserError(f"workdir {path} is another folder on other hosts: use one in a bucket, or on a shared disk")
    refuse_links_out(folder)
    return folder


class RunLog:
    """The writer of these files; on every process but the first its methods do nothing.

    Args:
      workdir: a folder that `make_workdir` has made.
      settings: the resolved config as nested dicts.
      resumed_step: the step that the run goes on from; 0 if the run begins.
    """

    def __init__(self, workdir: os.PathLike | str, settings: Mapping[str, Any], resumed_step: int = 0) -> None:
        self.workdir = epath.Path(workdir)
        self._writes = processes.is_first()
        self._began = self._logged = time.perf_counter()
        self._last: tuple[int, int] | None = None  # step and images of the line before this one
        if not self._writes:
            return
        write_whole(self.workdir / "config.json", to_text(settings))
        (self.workdir / "samples").mkdir(exist_ok=True)
        self._metrics = JsonLines(self.workdir / "metrics.jsonl", resumed_step)
        self._timing = JsonLines(self.workdir / "timing.jsonl", resumed_step)
        self._boards: list[Board] = [TensorBoard(self.workdir / "tensorboard", resumed_step + 1)]
        wandb = WandbProject(**settings.get("wandb", {}))
        if wandb.project:
            self._boards.append(WandbRun(self.workdir, wandb, settings))

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
          timing: further scalars, which depend on the machine, for timing.jsonl.
        """
        if not self._writes:
            return
        numbers = {name: _number(value) for name, value in sorted(values.items())}
        now = time.perf_counter()
        speeds: dict[str, float | None] = {"seconds": round(now - self._began, 3)}
        if self._last is not None:
            elapsed = max(now - self._logged, 1e-9)
            speeds["steps_per_second"] = round((step - self._last[0]) / elapsed, 4)
            speeds["images_per_second"] = round((images - self._last[1]) / elapsed, 3)
        speeds |= memory_in_use()
        speeds |= {name: _number(value) for name, value in sorted((timing or {}).items())}
        self._logged, self._last = now, (step, images)
        self._metrics.write({"step": step, "images": images, **numbers})
        self._timing.write({"step": step, "images": images, **speeds})
        shown = numbers | {f"timing/{name}": value for name, value in speeds.items()}
        for board in self._boards:
            board.scalars({name: value for name, value in shown.items() if value is not None}, step)

    def picture(self, step: int, name: str, image: Image.Image) -> epath.Path:
        """Writes `samples/<name>-<step>.png` and shows it on the boards.

        A picture that can't be written is reported through logging, and the run goes on.

        Returns:
          the file's path, on every process.
        """
        path = self.workdir / "samples" / f"{name}-{step:06d}.png"
        if self._writes:
            try:
                save_png(image, path)
            except OSError as error:
                _log.warning("%s can't be written: %s; the run goes on", path, error.strerror or error)
            for board in self._boards:
                board.picture(name, image, step)
        return path

    def flush(self) -> None:
        """Makes all that was logged visible to readers; call this before a checkpoint is saved.

        Raises:
          OSError: it can't be written.
        """
        for writer in self._writers():
            writer.flush()

    def close(self) -> None:
        """Writes what can be written, and closes the files."""
        for writer in self._writers():
            writer.close()

    def _writers(self) -> "list[JsonLines | Board]":
        return [self._metrics, self._timing, *self._boards] if self._writes else []


class JsonLines:
    """A file with a JSON object a line. The lines of steps after `last_step` are cut; new lines are appended.

    Args:
      path: local or gs://; made if it is not there.
      last_step: the step that the run goes on from.
    """

    def __init__(self, path: os.PathLike | str, last_step: int) -> None:
        self._path = epath.Path(path)
        before = self._path.read_text() if self._path.exists() else ""
        kept = "".join(line for line in before.splitlines(keepends=True) if _step(line) <= last_step)
        if kept != before:
            write_whole(self._path, kept)
        self._file = AppendFile(self._path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds a line.

        Args:
          record: has a `step`, and no value that is not finite.
        """
        self._file.append((json.dumps(record, allow_nan=False) + "\n").encode())

    def flush(self) -> None:
        """Makes the lines visible to readers, and lets them outlive a crash.

        Raises:
          OSError: they can't be written.
        """
        self._file.flush()

    def close(self) -> None:
        """Writes what can be written, and closes the file."""
        self._file.close()


def _step(line: str) -> float:
    """The step of a line; infinity for half a line, since only a crash after the last checkpoint leaves one."""
    if not line.endswith("\n"):
        return math.inf
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf


def _number(value: Any) -> int | float | None:
    """A scalar as JSON has it: None for one that is not finite; a float32 becomes the float64 of the same value."""
    number = np.asarray(value).item()
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number
