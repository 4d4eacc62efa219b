"""Checkpoints: state, data position, config and metrics of a step, saved together by Orbax while the run goes on."""

import contextlib
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PolicyCheckpointInfo, PreservationContext, PreservationPolicy

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.preemption import Preempted
from sid_jax.runtime.run import manifest
from sid_jax.runtime.run.retention import Keep
from sid_jax.runtime.storage.files import absolute

_SECONDS = 900  # a save that takes longer, on any process, has failed

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was read.

    Attributes:
      step: how many updates had been done.
      state: the tree that was asked for.
      data_position: as it was saved.
      config: as it was saved, as JSON has it.
      metrics: as they were saved.
    """

    step: int
    state: Any
    data_position: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, Any]


class SaveError(Exception):
    """A checkpoint was not written; the message is one line. Earlier ones are as they were, and saving can go on."""


class _UnreadableError(Exception):
    """A checkpoint can't be read; the message is the reason, in one line."""


class Checkpoints:
    """The checkpoints of a run, in `folder/<step>`.

    Saving copies the state to the host and writes it in the background; a checkpoint that was not completed, because
    the process ended, is never seen. What is restored equals what was saved to the bit, on any mesh. All processes of
    a run call the same methods in the same order.

    Args:
      folder: local or gs://; made if it is not there.
      keep: which checkpoints stay; a number: so many of the newest.
      read_only: for reading the checkpoints of a run that may be in progress; nothing is deleted or moved.
    """

    def __init__(self, folder: os.PathLike | str, keep: Keep | int = 2, read_only: bool = False) -> None:
        self.folder = absolute(folder)  # Orbax takes no relative path
        self._keep = Keep(keep) if isinstance(keep, int) else keep
        self._read_only = read_only
        self._values: dict[int, float] = {}  # step to value of the metric that the best are kept by
        self._saving: int | None = None
        self._began = self._ended = 0.0
        logging.getLogger("absl").addFilter(_no_traceback_of_orbax)
        self._manager = self._open()
        for step in self._manager.all_steps() if self._keep.best and not read_only else ():
            with contextlib.suppress(Exception):  # a damaged checkpoint has no value
                self._remember(step, self._read_json(step, "metrics"))

    def save(
        self,
        step: int,
        state: Any,
        data_position: Mapping[str, Any],
        config: Mapping[str, Any],
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves a checkpoint; returns when the state may be changed or donated, before it is on the disk.

        Does nothing if the newest checkpoint is of this step.

        Args:
          step: updates so far, more than those of the checkpoints that are there.
          state: a pytree of arrays.
          data_position: JSON-able.
          config: the resolved config as nested dicts, JSON-able.
          metrics: JSON-able; the best checkpoints are kept by the entry `values`, name to number.

        Raises:
          SaveError: the checkpoint can't be written, as far as that is known by now.
        """
        if step == self.latest():
            return
        self._remember(step, metrics or {})
        self._saving, self._began, self._ended = step, time.perf_counter(), 0.0
        with self._reporting():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    data=ocp.args.JsonSave(dict(data_position)),
                    config=ocp.args.JsonSave(dict(config)),
                    metrics=ocp.args.JsonSave(dict(metrics or {})),
                    manifest=manifest.ManifestSave(),
                ),
                force=True,
            )

    def wait(self) -> float | None:
        """Waits until the checkpoint that was saved last is complete.

        Returns:
          how many seconds saving it took; None if nothing was being saved.

        Raises:
          SaveError: it could not be written.
        """
        if self._saving is None:
            return None
        with self._reporting():
            self._manager.wait_until_finished()
        self._saving = None
        return (self._ended or time.perf_counter()) - self._began

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written at this moment, so that `wait` would wait."""
        return self._saving is not None and self._manager.is_saving_in_progress()

    def latest(self) -> int | None:
        """The step of the newest checkpoint, which may be the one that is being saved; None if there is none."""
        return self._manager.latest_step()

    def config(self) -> dict[str, Any]:
        """The config of the newest checkpoint whose config can be read, as JSON has it.

        Raises:
          UserError: there is none.
        """
        return self._newest_readable("config", lambda step: self._read_json(step, "config"))[0]

    def state_names(self) -> set[str] | None:
        """What the state of the newest checkpoint is made of, by the names of its fields.

        None where that can't be read: `restore` then says why, and goes on to an earlier checkpoint.
        """
        folder = self.folder / str(self.latest()) / "state"
        try:
            return _on_all(lambda: set(ocp.PyTreeCheckpointHandler().metadata(folder).tree))
        except _UnreadableError:
            return None

    def restore(self, abstract_state: Any, partial: bool = False) -> Restored:
        """The newest checkpoint that can be read.

        A newer one that can't be read is reported through logging, and moved to `unreadable-<step>` so that the run can
        save that step again.

        Args:
          abstract_state: `abstract(state)`, or ShapeDtypeStructs with the shardings to restore with.
          partial: `abstract_state` is a part of the saved tree (such as `{"ema": ...}`), and only that is read.

        Raises:
          UserError: none of the checkpoints can be read, or there is none.
        """
        restored, failures = self._newest_readable("", lambda step: self._restore_step(step, abstract_state, partial))
        self._move_aside(failures)
        return restored

    def close(self) -> None:
        """Waits, and ends the background threads; reports through logging what could not be written."""
        try:
            self.wait()
        except SaveError as error:
            _log.warning("%s", error)
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Closes, but not where this process alone has failed: the others would not come to finish writing with it."""
        if kind is None or jax.process_count() == 1 or issubclass(kind, UserError | Preempted):
            self.close()

    def _open(self) -> ocp.CheckpointManager:
        def ended() -> None:
            self._ended = time.perf_counter()

        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_Policy(self._keep, self._values),
                create=not self._read_only,
                cleanup_tmp_directories=not self._read_only,
                async_options=ocp.options.AsyncOptions(timeout_secs=_SECONDS, post_finalization_callback=ended),
            ),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
                "metrics": ocp.JsonCheckpointHandler(),
                manifest.ITEM: manifest.ManifestHandler(),  # the last item, since it lists what the others have written
            },
        )

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """A context in which any error is one of saving: it becomes a SaveError, and what was written is removed."""
        try:
            yield
        except Exception as error:
            step, self._saving = self._saving, None
            if step is not None:
                self._values.pop(step, None)
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = self._open()
            newest = self.latest()
            so_far = "there is none yet" if newest is None else f"the newest is of update {newest}"
            message = f"the checkpoint of update {step} can't be written: {_one_line(error)}; {so_far}"
            raise SaveError(message) from error

    def _newest_readable(self, item: str, read: Callable[[int], _T]) -> tuple[_T, dict[int, str]]:
        """What `read` returns for the newest step for which it does not fail, and why it failed for each later step.

        Args:
          item: the item that `read` reads, which is compared with the manifest before; "": all of them.
          read: a function of the step.

        Raises:
          UserError: it fails for each step.
        """
        failures: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                _on_all(functools.partial(self._verify, step, item))
                return _on_all(functools.partial(read, step)), failures
            except _UnreadableError as reason:
                failures[step] = str(reason)
                _log.warning("checkpoint %s can't be read: %s", self.folder / str(step), reason)
        reasons = "; ".join(f"{step}: {reason}" for step, reason in failures.items())
        raise UserError(f"no checkpoint in {self.folder} can be read ({reasons or 'there is none'})")

    def _verify(self, step: int, item: str) -> None:
        """Compares a checkpoint with its manifest; the first process does it for all."""
        if processes.is_first():
            manifest.verify(self.folder / str(step), item)

    def _restore_step(self, step: int, abstract_state: Any, partial: bool) -> Restored:
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    abstract_state,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
                    partial_restore=partial,
                ),
                data=ocp.args.JsonRestore(),
                config=ocp.args.JsonRestore(),
                metrics=ocp.args.JsonRestore(),
            ),
        )
        lacking = [
            jax.tree_util.keystr(path, simple=True, separator=".")
            for path, leaf in jax.tree_util.tree_leaves_with_path(read["state"])
            if isinstance(leaf, jax.ShapeDtypeStruct)
        ]
        if lacking:  # in a partial restore Orbax returns the ShapeDtypeStruct of a leaf that it does not find
            raise KeyError(f"it lacks {', '.join(lacking)}")
        return Restored(step, read["state"], read["data"], read["config"], read["metrics"])

    def _read_json(self, step: int, item: str) -> dict[str, Any]:
        """An item of a checkpoint that is a JSON object."""
        value = self._manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.JsonRestore()}))[item]
        if not isinstance(value, dict):
            raise ValueError(f"its {item} is no JSON object")
        return value

    def _remember(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Notes the value that the best checkpoints are kept by, if the step has one."""
        value = metrics.get("values", {}).get(self._keep.metric)
        if isinstance(value, int | float):
            self._values[step] = value

    def _move_aside(self, failures: Mapping[int, str]) -> None:
        """Renames the checkpoints of these steps, which can't be read."""
        if not failures or self._read_only:
            return
        if processes.is_first():
            for step in failures:
                aside = self.folder / f"unreadable-{step}"
                aside.rmtree(missing_ok=True)
                (self.folder / str(step)).rename(aside)
                _log.warning("moved to %s; the run goes on from an earlier step", aside)
        processes.wait_for_all("unreadable checkpoints are moved")
        self._manager.reload()


class _Policy(PreservationPolicy):
    """`Keep` in the form that Orbax asks for."""

    def __init__(self, keep: Keep, values: Mapping[int, float]) -> None:
        self._keep, self._values = keep, values

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> list[bool]:
        """Whether each checkpoint stays."""
        kept = self._keep.kept([checkpoint.step for checkpoint in checkpoints], self._values)
        return [checkpoint.step in kept for checkpoint in checkpoints]


def abstract(state: Any, shardings: Any = None) -> Any:
    """The state's shapes and dtypes with shardings, as `restore` needs them.

    Args:
      state: a pytree of arrays, or of ShapeDtypeStructs.
      shardings: a tree of the same structure; None: the state's own.
    """
    if shardings is None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state, shardings
    )


def _on_all(function: Callable[[], _T]) -> _T:
    """The function's result; all processes call this together.

    Raises:
      _UnreadableError: the function fails, here or on another process.
    """
    failure: Exception | None = None
    try:
        result = function()
    except Exception as error:
        failure = error
    if processes.gather(failure is not None).any():
        reason = _one_line(failure) if failure else "another process can't read it"
        raise _UnreadableError(reason) from failure
    return result


def _one_line(error: Exception) -> str:
    """What went wrong. Of an error of the operating system, which TensorStore wraps in many words, only its name."""
    text = " ".join(str(error).split())
    code = re.search(r"os_error_code='(\d+)'", text)
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {text[:300]}"


def _no_traceback_of_orbax(record: logging.LogRecord) -> bool:
    """False for Orbax's tracebacks of errors: it logs each several times, and raises the error, which we report."""
    return not (record.exc_info and "orbax" in record.pathname)
