"""Checkpoints: state, data position, config and metrics of a step, saved together by Orbax while the run goes on."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.preemption import Preempted
from sid_jax.runtime.run import manifest
from sid_jax.runtime.run.retention import Keep
from sid_jax.runtime.storage.files import absolute

_SECONDS = 900  # a save that takes longer, on any process, has failed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was read: `step` is the number of updates that had been done."""

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
        keep: which of them stay; a number: so many of the newest.
        read_only: for reading the checkpoints of a run that may be in progress; nothing is deleted or moved.
    """

    def __init__(self, folder: os.PathLike | str, keep: Keep | int = 2, read_only: bool = False):
        self.folder = absolute(folder)  # Orbax takes no others.
        self._keep = Keep(keep) if isinstance(keep, int) else keep
        self._read_only = read_only
        self._values: dict[int, float] = {}  # of the metric that the best are kept by
        self._saving: int | None = None
        self._began = self._ended = 0.0
        logging.getLogger("absl").addFilter(_no_traceback_of_orbax)
        self._manager = self._open()
        for step in self._manager.all_steps() if self._keep.best and not read_only else ():
            with contextlib.suppress(Exception):  # one that is damaged has no value
                self._remember(step, self._read_json(step, "metrics"))

    def save(
        self,
        step: int,
        state: Any,
        data_position: Mapping[str, Any],
        config: ConfigDict,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves a step; returns when the state may be changed or donated, before it is on the disk.

        Does nothing if the newest checkpoint is of this step.

        Args:
            step: updates so far, more than those of the checkpoints that are there.
            state: a pytree of arrays.
            data_position: JSON-able.
            config: the resolved config.
            metrics: JSON-able, to keep with it; the best are kept by its `values`, name to number.

        Raises:
            SaveError: this one can't be written, as far as that is known by now.
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
                    config=ocp.args.JsonSave(config.to_dict()),
                    metrics=ocp.args.JsonSave(dict(metrics or {})),
                    manifest=manifest.ManifestSave(),
                ),
                force=True,
            )

    def wait(self) -> float | None:
        """Returns when what was saved last is complete, with the seconds that took; None if nothing was being saved.

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
        """Whether a checkpoint is being written at this moment; `wait` then takes its time."""
        return self._saving is not None and self._manager.is_saving_in_progress()

    def latest(self) -> int | None:
        """The step of the newest checkpoint, one that is being saved included; None if there is none."""
        return self._manager.latest_step()

    def config(self) -> dict[str, Any]:
        """The config of the newest checkpoint whose config can be read.

        Raises:
            UserError: there is none.
        """
        return self._newest_readable("config", lambda step: self._read_json(step, "config"))[0]

    def restore(self, abstract_state: Any, part: bool = False) -> Restored:
        """The newest checkpoint that can be read; there is one.

        One that can't be read is reported through logging, and moved to `unreadable-<step>` so that the run can save
        that step again.

        Args:
            abstract_state: `abstract(state)`, or ShapeDtypeStructs with the shardings to restore with.
            part: `abstract_state` is a part of the saved tree (such as `{"ema": ...}`), and only that is read.

        Raises:
            UserError: none of the checkpoints can be read.
        """
        restored, failures = self._newest_readable("", lambda step: self._restore_step(step, abstract_state, part))
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
        """Closes; but not where this process alone has failed, as the others will not come to write with it."""
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
                manifest.ITEM: manifest.ManifestHandler(),  # the last one, as it lists what the others have written
            },
        )

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turns what fails in saving into a SaveError; forgets the step, and removes what there is of it."""
        try:
            yield
        except Exception as error:
            step, self._saving = self._saving, None
            self._values.pop(step, None)
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = self._open()
            newest = self.latest()
            so_far = "there is none yet" if newest is None else f"the newest is of update {newest}"
            message = f"the checkpoint of update {step} can't be written: {_one_line(error)}; {so_far}"
            raise SaveError(message) from error

    def _newest_readable(self, item: str, read: Callable[[int], Any]) -> tuple[Any, dict[int, str]]:
        """What `read` returns for the newest step that it does not fail for, and why it failed for those after.

        item: what of a checkpoint is read, and therefore compared with its manifest; "": all.
        """
        failures: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            reason, result = self._attempt(lambda step=step: manifest.verify(self.folder / str(step), item), first=True)
            if not reason:
                reason, result = self._attempt(lambda step=step: read(step))
            if not reason:
                return result, failures
            failures[step] = reason
            _log.warning("checkpoint %s can't be read: %s", self.folder / str(step), reason)
        reasons = "; ".join(f"{step}: {reason}" for step, reason in failures.items())
        raise UserError(f"no checkpoint in {self.folder} can be read ({reasons or 'there is none'})")

    def _attempt(self, function: Callable[[], Any], first: bool = False) -> tuple[str, Any]:
        """(why it failed, None), or ("", its result); a failure of one process is one of all.

        first: only the first process does it.
        """
        reason, result = "", None
        if not first or processes.is_first():
            try:
                result = function()
            except Exception as error:
                reason = _one_line(error)
        if processes.gather(bool(reason)).any():
            reason = reason or "another process can't read it"
        return reason, result

    def _restore_step(self, step: int, abstract_state: Any, part: bool) -> Restored:
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    abstract_state,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
                    partial_restore=part,
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
        if lacking:  # Orbax leaves them as they are if only a part is asked for.
            raise KeyError(f"it lacks {', '.join(lacking)}")
        return Restored(step, read["state"], read["data"], read["config"], read["metrics"])

    def _read_json(self, step: int, item: str) -> dict[str, Any]:
        value = self._manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.JsonRestore()}))[item]
        if not isinstance(value, dict):
            raise ValueError(f"its {item} is no JSON object")
        return value

    def _remember(self, step: int, metrics: Mapping[str, Any]) -> None:
        value = metrics.get("values", {}).get(self._keep.metric)
        if isinstance(value, int | float):
            self._values[step] = value

    def _move_aside(self, failures: Mapping[int, str]) -> None:
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
    """`Keep`, as Orbax asks for it."""

    def __init__(self, keep: Keep, values: Mapping[int, float]):
        self._keep, self._values = keep, values

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        kept = self._keep.kept([checkpoint.step for checkpoint in checkpoints], self._values)
        return [checkpoint.step in kept for checkpoint in checkpoints]


def abstract(state: Any, shardings: Any = None) -> Any:
    """The state's shapes and dtypes, with the given shardings or, for arrays on devices, their own."""
    if shardings is None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state, shardings
    )


def _one_line(error: BaseException) -> str:
    """What went wrong; of an error of the operating system, which TensorStore wraps in many words, its name alone."""
    text = " ".join(str(error).split())
    code = re.search(r"os_error_code='(\d+)'", text)
    if code or (isinstance(error, OSError) and error.strerror):
        return os.strerror(int(code[1])) if code else error.strerror
    return f"{type(error).__name__}: {text[:300]}"


def _no_traceback_of_orbax(record: logging.LogRecord) -> bool:
    """Orbax logs the whole traceback, several times, of an error that it then raises and that is reported here."""
    return not (record.exc_info and "orbax" in record.pathname)
