"""Checkpoints: state, data position, config and metrics of a step, saved together by Orbax while the run goes on."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.runtime.files import absolute

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was read: `step` is the number of updates that had been done."""

    step: int
    state: Any
    data_position: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, in `folder/<step>`.

    Saving copies the state to the host and writes it in the background; a checkpoint that was not completed, because
    the process ended, is never seen. What is restored equals what was saved to the bit, on any mesh.

    Args:
        folder: local or gs://; made if it is not there.
        keep: how many of the newest are kept.
        read_only: for reading the checkpoints of a run that may be in progress; nothing is deleted or moved.
    """

    def __init__(self, folder: os.PathLike | str, keep: int = 2, read_only: bool = False):
        if keep < 1:
            raise UserError(f"keep_checkpoints is {keep}: keep at least 1")
        self.folder = absolute(folder)  # Orbax takes no others.
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
            ),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
                "metrics": ocp.JsonCheckpointHandler(),
            },
        )

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
            metrics: JSON-able numbers to keep with it.
        """
        if step == self.latest():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                data=ocp.args.JsonSave(dict(data_position)),
                config=ocp.args.JsonSave(config.to_dict()),
                metrics=ocp.args.JsonSave(dict(metrics or {})),
            ),
            force=True,
        )

    def latest(self) -> int | None:
        """The step of the newest checkpoint, one that is being saved included; None if there is none."""
        return self._manager.latest_step()

    def config(self) -> dict[str, Any]:
        """The config of the newest checkpoint whose config can be read.

        Raises:
            UserError: there is none.
        """
        only_config = ocp.args.Composite(config=ocp.args.JsonRestore())
        return self._newest_readable(lambda step: self._manager.restore(step, args=only_config)["config"])[0]

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
        restored, failures = self._newest_readable(lambda step: self._restore_step(step, abstract_state, part))
        self._move_aside(failures)
        return restored

    def wait(self) -> None:
        """Returns when all that was saved is complete; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the background threads."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _newest_readable(self, read: Callable[[int], Any]) -> tuple[Any, dict[int, str]]:
        """What `read` returns for the newest step that it does not fail for, and why it failed for those after."""
        failures: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return read(step), failures
            except Exception as error:
                failures[step] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                _log.warning("checkpoint %s can't be read: %s", self.folder / str(step), failures[step])
        reasons = "; ".join(f"{step}: {reason}" for step, reason in failures.items())
        raise UserError(f"no checkpoint in {self.folder} can be read ({reasons or 'there is none'})")

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

    def _move_aside(self, failures: Mapping[int, str]) -> None:
        if not failures or self._read_only:
            return
        if jax.process_index() == 0:
            for step in failures:
                aside = self.folder / f"unreadable-{step}"
                aside.rmtree(missing_ok=True)
                (self.folder / str(step)).rename(aside)
                _log.warning("moved to %s; the run goes on from an earlier step", aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("unreadable checkpoints are moved")
        self._manager.reload()


def abstract(state: Any, shardings: Any = None) -> Any:
    """The state's shapes and dtypes, with the given shardings or, for arrays on devices, their own."""
    if shardings is None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state, shardings
    )
