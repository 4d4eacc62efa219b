"""Checkpoints: state, data position, config and metrics of a step, saved together by Orbax while the run goes on."""

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.preemption import Preempted
from sid_jax.runtime.run import manifest
from sid_jax.runtime.run.completion import Completion
from sid_jax.runtime.run.presence import Presence
from sid_jax.runtime.run.readback import Readback, json_object
from sid_jax.runtime.run.retention import Keep
from sid_jax.runtime.run.saving_errors import UnreadableError, leave_out_echoes, on_all, one_line
from sid_jax.runtime.run.state_item import StateHandler, StateRestore, StateSave, check_name
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
        check_name(self.folder)
        self._keep = Keep(keep) if isinstance(keep, int) else keep
        self._read_only = read_only
        self._values: dict[int, float] = {}  # step to value of the metric that the best are kept by
        self._saving: Completion | None = None
        leave_out_echoes()
        self._manager = self._open(create=not read_only)
        self._presence = Presence(self.folder)
        self._steps = sorted(self._manager.all_steps())
        for step in self._steps if self._keep.best and not read_only else ():
            with contextlib.suppress(Exception):  # a damaged checkpoint has no value
                self._remember(step, json_object(self.folder / str(step), "metrics"))

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
          UserError: the folder was removed.
        """
        if step == self.latest():
            return
        self.check_there()
        items = {"data": dict(data_position), "config": dict(config), "metrics": dict(metrics or {})}
        self._remember(step, metrics or {})
        saving = self._saving = Completion(step)
        self._steps.append(step)
        with self._reporting():
            readback = Readback(state, items) if processes.is_first() else None
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=StateSave(state),
                    manifest=manifest.ManifestSave(),
                    **{name: ocp.args.JsonSave(value) for name, value in items.items()},
                ),
                force=True,
            )
            saving.begin(functools.partial(self._complete, step, readback))

    def wait(self) -> float | None:
        """Waits until the checkpoint that was saved last is complete and was read back; then those are deleted that go.

        Returns:
          how many seconds saving it took; None if nothing was being saved.

        Raises:
          SaveError: it could not be written, or what was written can't be read.
          UserError: the folder was removed.
        """
        if self._saving is None:
            self.check_there()
            return None
        saving = self._saving
        with self._reporting():
            on_all(saving.result)
        self._saving = None
        self._delete_old()
        return saving.seconds

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written or read back at this moment, so that `wait` would wait."""
        return self._saving is not None and not self._saving.done

    def steps(self) -> list[int]:
        """The steps of all checkpoints, the earliest first."""
        return list(self._steps)

    def latest(self) -> int | None:
        """The step of the newest checkpoint, which may be the one that is being saved; None if there is none."""
        return self._steps[-1] if self._steps else None

    def config(self) -> dict[str, Any]:
        """The config of the newest checkpoint whose config can be read, as JSON has it.

        Raises:
          UserError: there is none.
        """
        read = functools.partial(self._read_json, item="config")
        return self._newest_readable("config", self._steps, read)[0]

    def state_names(self) -> set[str] | None:
        """What the state of the newest checkpoint is made of, by the names of its fields.

        None where that can't be read: `restore` then says why, and goes on to an earlier checkpoint.
        """
        folder = self.folder / str(self.latest()) / "state"
        try:
            return on_all(lambda: set(StateHandler().metadata(folder).tree))
        except UnreadableError:
            return None

    def restore(self, abstract_state: Any, partial: bool = False, step: int | None = None) -> Restored:
        """The newest checkpoint that can be read, or that of one step.

        A newer one that can't be read is reported through logging, and moved to `unreadable-<step>` so that the run can
        save that step again.

        Args:
          abstract_state: `abstract(state)`, or ShapeDtypeStructs with the shardings to restore with.
          partial: `abstract_state` is a part of the saved tree (such as `{"ema": ...}`), and only that is read.
          step: the step whose checkpoint is read, and no other; None: the newest.

        Raises:
          UserError: none of the checkpoints can be read, or there is none; or not that of the step.
        """
        self.check_step(step)
        steps = self._steps if step is None else [step]
        read = functools.partial(self._restore_step, abstract_state=abstract_state, partial=partial)
        restored, failures = self._newest_readable("", steps, read)
        self._move_aside(failures)
        return restored

    def check_there(self) -> None:
        """Notices that the folder was removed; all processes call this together.

        Raises:
          UserError: it was removed or moved, or made anew.
        """
        if not self._read_only and processes.gather(self._presence.lost()).any():
            raise UserError(
                f"{self.folder} was removed or moved while the run went on, and nothing can be saved there: what was "
                "trained since is lost; begin anew, or put the folder back and run the same command again"
            )

    def check_step(self, step: int | None) -> None:
        """Refuses a step that has no checkpoint; None is the newest, whichever that is.

        Raises:
          UserError: it has none; the message lists those that have.
        """
        if step is not None and step not in self._steps:
            there = f"there are those of {', '.join(map(str, self._steps))}" if self._steps else "there is none"
            raise UserError(f"{self.folder} has no checkpoint of update {step}: {there}")

    def close(self) -> None:
        """Waits, and ends the background threads; reports through logging what could not be written."""
        if self._saving is not None:
            try:
                self.wait()
            except (SaveError, UserError) as error:
                _log.warning("%s", error)
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Closes, but not where this process alone has failed: the others would not come to finish writing with it."""
        if kind is None or jax.process_count() == 1 or issubclass(kind, UserError | Preempted):
            self.close()

    def _open(self, create: bool = False) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None,  # `wait` deletes, when the newest was read back
                create=create,
                cleanup_tmp_directories=not self._read_only,
                async_options=ocp.options.AsyncOptions(timeout_secs=_SECONDS),
                lightweight_initialize=True,  # else Orbax reads each checkpoint's `metrics`, which may be damaged
            ),
            item_handlers={
                "state": StateHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
                "metrics": ocp.JsonCheckpointHandler(),
                manifest.ITEM: manifest.ManifestHandler(),  # the last item, since it lists what the others have written
            },
        )

    def _complete(self, step: int, readback: Readback | None) -> None:
        """Returns when a checkpoint is on the disk and was read back, which one process does for all."""
        self._manager.wait_until_finished()
        if readback is not None:
            try:
                readback.check(self.folder / str(step))
            except Exception as error:
                raise UnreadableError(f"what was written can't be read back: {one_line(error)}") from error

    def save_error(self, step: int | None, error: Exception) -> SaveError:
        """What to say of a checkpoint that can't be written, and of the one that there is."""
        newest = self.latest()
        so_far = "there is none yet" if newest is None else f"the newest is of update {newest}"
        return SaveError(f"the checkpoint of update {step} can't be written: {one_line(error)}; {so_far}")

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """A context in which any error is one of saving: it becomes a SaveError, and what was written is removed."""
        try:
            yield
        except Exception as error:
            saving, self._saving = self._saving, None
            step = saving.step if saving else None
            with contextlib.suppress(Exception):
                self._manager.close()
            self.check_there()
            if step is not None:
                self._values.pop(step, None)
                self._remove(step)
            self._manager = self._open()
            self._steps = sorted(self._manager.all_steps())
            raise self.save_error(step, error) from error

    def _delete_old(self) -> None:
        """Deletes the checkpoints that do not stay; the first process does it for all."""
        kept = self._keep.kept(self._steps, self._values)
        for step in [step for step in self._steps if step not in kept]:
            folder = self.folder / str(step)
            try:
                if processes.is_first():
                    folder.rmtree(missing_ok=True)
            except OSError as error:
                _log.warning("checkpoint %s can't be deleted: %s; the run goes on", folder, one_line(error))
            else:
                self._steps.remove(step)
                self._values.pop(step, None)

    def _remove(self, step: int) -> None:
        """Removes a checkpoint that is complete and can't be read, so that its step can be saved again."""
        if processes.is_first():
            with contextlib.suppress(OSError):
                (self.folder / str(step)).rmtree(missing_ok=True)
        processes.wait_for_all("a checkpoint that can't be read is removed")

    def _newest_readable(self, item: str, steps: Sequence[int], read: Callable[[int], _T]) -> tuple[_T, dict[int, str]]:
        """What `read` returns for the newest step for which it does not fail, and why it failed for each later step.

        Args:
          item: the item that `read` reads, which is compared with the manifest before; "": all of them.
          steps: those that may be read.
          read: a function of the step.

        Raises:
          UserError: it fails for each step.
        """
        failures: dict[int, str] = {}
        for step in sorted(steps, reverse=True):
            try:
                on_all(functools.partial(self._verify, step, item))
                return on_all(functools.partial(read, step)), failures
            except UnreadableError as reason:
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
                state=StateRestore(
                    abstract_state,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
                    partial_restore=partial,
                )
            ),
        )
        lacking = [
            jax.tree_util.keystr(path, simple=True, separator=".")
            for path, leaf in jax.tree_util.tree_leaves_with_path(read["state"])
            if isinstance(leaf, jax.ShapeDtypeStruct)
        ]
        if lacking:  # in a partial restore Orbax returns the ShapeDtypeStruct of a leaf that it does not find
            raise KeyError(f"it lacks {', '.join(lacking)}")
        data, config, metrics = (self._read_json(step, item) for item in ("data", "config", "metrics"))
        return Restored(step, read["state"], data, config, metrics)

    def _read_json(self, step: int, item: str) -> dict[str, Any]:
        """An item of a checkpoint that is a JSON object."""
        return json_object(self.folder / str(step), item)

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
        self._manager.close()
        self._manager = self._open()
        self._steps = sorted(self._manager.all_steps())


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
