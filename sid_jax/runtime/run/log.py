"""What a run writes into its workdir, beside its checkpoints:

    config.json        the resolved config; its paths are from the root
    metrics.jsonl      a JSON object a line: step, images, losses and what else follows from config and seed alone, so
                       that two runs of one config are equal to the byte; a value that is not finite is null
    timing.jsonl       the same steps: seconds since the process began; updates/s and images/s since the line before;
                       memory in use; how long a checkpoint took that was completed since the line before
    samples/*.png      sample grids
    tensorboard/       all of it for TensorBoard, and for Weights & Biases where the config names a project
    report.html        all of it as one page, see `report.page`; written before each checkpoint, and at the end
    run.log            what the run has said, see `messages`
    owner.json         while a run is in the folder: which, see `owner`

and what a later start compares, see `record`.

A run that goes on from step s first cuts the lines after s, so that no step is missing or there twice. Lines that are
none of a run's are left out, which is said. While the disk is full, lines wait until there is space, and a checkpoint
waits for the lines before it.
"""

import io
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import jax
import numpy as np
from etils import epath
from PIL import Image

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.memory import memory_in_use
from sid_jax.runtime.run import record
from sid_jax.runtime.run.board import Board
from sid_jax.runtime.run.pictures import save_png
from sid_jax.runtime.run.report.board import Report
from sid_jax.runtime.run.report.page import FILE as REPORT
from sid_jax.runtime.run.report.page import PICTURE, TABLE, Changes
from sid_jax.runtime.run.tensorboard import TensorBoard
from sid_jax.runtime.run.wandb import WandbProject, WandbRun
from sid_jax.runtime.storage.append_file import AppendFile
from sid_jax.runtime.storage.files import absolute, is_remote, reaching, refuse_links_out, write_whole
from sid_jax.runtime.storage.json_files import parse_json, to_text
from sid_jax.runtime.storage.small_files import check_regular, open_regular, read_small_bytes

_FILES = ("config.json", "metrics.jsonl", "timing.jsonl", "run.log", "wandb_id", record.CHECKPOINT, record.TEACHER)
_TABLES = ("table.txt", TABLE, PICTURE, REPORT)
_FOLDERS = ("samples", "tensorboard", "checkpoints", "profile", "text")
_CHECKPOINTED = ("gs://", "s3://")  # the buckets that Orbax writes to
_LONGEST_LINE = 1 << 20  # bytes
_LARGEST = 1 << 30  # bytes of a file with a line for each log; 2 million lines

_log = logging.getLogger(__name__)


def make_workdir(path: str) -> epath.Path:
    """Makes a run's folder if it is not there, and checks that every process can write to it. All processes call it.

    Args:
      path: local or gs://.

    Returns:
      the folder's absolute path.

    Raises:
      UserError: the folder can't be made or written to, a file is in its way, a link in it leads out of it, what has
        the name of one of its files or folders is none, or it is another folder on other hosts.
    """
    folder = absolute(path)
    if is_remote(folder) and not os.fspath(folder).startswith(_CHECKPOINTED):
        raise UserError(f"workdir {path}: checkpoints are written to a disk, or to gs:// or s3://: name such a folder")
    probe = folder / f".writable.{jax.process_index()}"
    try:
        with reaching(folder):
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
    if not is_remote(folder):
        _check_names(folder)
    return folder


def _check_names(folder: epath.Path) -> None:
    """Raises UserError where something else has the name of a file or of a folder that a run writes."""
    for name in (*_FILES, *_TABLES):
        try:
            check_regular(folder / name)
        except UserError as error:
            raise UserError(f"{error}: a run writes it, so remove it or move it away") from None
    for name in _FOLDERS:
        if (folder / name).exists() and not (folder / name).is_dir():
            raise UserError(f"{folder / name} is a file, and a run writes a folder of this name: move it away")


class RunLog:
    """The writer of these files; on every process but the first its methods do nothing.

    Args:
      workdir: a folder that `make_workdir` has made.
      settings: the resolved config as nested dicts.
      resumed_step: the step that the run goes on from; 0 if the run begins.
      changes: the settings that differ from the defaults.
    """

    def __init__(
        self,
        workdir: os.PathLike | str,
        settings: Mapping[str, Any],
        resumed_step: int = 0,
        changes: Changes = (),
    ) -> None:
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
        self._boards: list[Board] = [
            TensorBoard(self.workdir / "tensorboard", resumed_step + 1),
            Report(self.workdir, settings, changes, resumed_step),
        ]
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

    Raises:
      UserError: what is there is no regular file, or too large for one of these.
    """

    def __init__(self, path: os.PathLike | str, last_step: int) -> None:
        self._path = epath.Path(path)
        if self._path.exists():
            _cut(self._path, last_step)
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


def _cut(path: epath.Path, last_step: int) -> None:
    """Rewrites a file of lines without those after `last_step`, and without what are none of a run's."""
    if is_remote(path):
        content: BinaryIO = io.BytesIO(read_small_bytes(path, _LARGEST))
    else:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise UserError(f"{path}: {size} bytes is too large for the log of a run: move it away")
        content = open_regular(path)
    with content:
        kept, size, strange = _kept(content, last_step)
    if strange:
        _log.warning("%s: %d lines that no run writes are left out", path, strange)
    if len(kept) != size:
        write_whole(path, kept)


def _kept(content: BinaryIO, last_step: int) -> tuple[bytes, int, int]:
    """The lines up to a step; how many bytes there were; and how many whole lines are none of a run's."""
    kept, size, strange = bytearray(), 0, 0
    while line := content.readline(_LONGEST_LINE):
        size += len(line)
        step = _step(line)
        if step is None:
            # Half a line at the end is what a crash after the last checkpoint leaves.
            strange += line.endswith(b"\n") or len(line) == _LONGEST_LINE
        elif step <= last_step:
            kept += line
    return bytes(kept), size, strange


def _step(line: bytes) -> int | None:
    """The step of a line; None for half a line, and for what no run writes."""
    if not line.endswith(b"\n"):
        return None
    try:
        step = parse_json(line, "")["step"]
    except (UserError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) else None


def _number(value: Any) -> int | float | None:
    """A scalar as JSON has it: None for one that is not finite; a float32 becomes the float64 of the same value."""
    number = np.asarray(value).item()
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number
