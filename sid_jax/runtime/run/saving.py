"""A run's checkpoints as it trains: when one is saved, and what happens when one can't be."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.runtime.run.checkpoints import Checkpoints, SaveError
from sid_jax.runtime.run.log import RunLog
from sid_jax.runtime.run.retention import Schedule
from sid_jax.runtime.run.window import Window

_log = logging.getLogger(__name__)


class Saving:
    """Saves checkpoints on schedule, with the log written out before each, and reports how that went.

    A checkpoint that can't be written, as on a full disk, is reported; the run then trains on, and saves again when the
    next one is due (`on_failed_save` "continue"), or ends ("stop").

    Args:
        checkpoints: where to.
        log: the run's log, which must be on the disk as far as the checkpoint is.
        config: the resolved config, which every checkpoint has in it.
    """

    def __init__(self, checkpoints: Checkpoints, log: RunLog, config: ConfigDict):
        self._checkpoints, self._log, self._config = checkpoints, log, config
        self._schedule = Schedule(config.checkpoint_every, config.checkpoint_minutes)
        self._seconds: float | None = None

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be saved after `step` updates."""
        return self._schedule.due(step)

    def look(self) -> dict[str, float]:
        """Called with every line of the log: finds out what has happened since, and what there is to log of it."""
        self._schedule.tick()
        # Several processes find out together, when the next one is saved.
        if jax.process_count() == 1 and not self._checkpoints.saving:
            self._wait()
        seconds, self._seconds = self._seconds, None
        return {} if seconds is None else {"checkpoint_seconds": round(seconds, 3)}

    def save(
        self,
        step: int,
        state: Any,
        data_position: Mapping[str, Any],
        window: Window,
        values: Mapping[str, float],
    ) -> None:
        """Saves a step, after the one before is complete; see `Checkpoints.save`. `values`: what was logged of it.

        Not one after which the losses are not finite, so that what is there to go back to is good: it is then due
        after the next update.
        """
        self._wait()
        if window.bad_steps:
            _log.warning("no checkpoint of update %d: the losses are not finite", step)
            self._schedule.missed()
            return
        self._schedule.saved()
        metrics = {"window": window.pending(), "values": dict(values)}
        try:
            self._log.flush()
            self._checkpoints.save(step, state, data_position, self._config, metrics)
        except SaveError as error:
            self._failed(error)
        except OSError as error:
            self._failed(SaveError(f"the checkpoint of update {step} can't be written: {error.strerror or error}"))

    def stop_if_bad(self, window: Window, step: int) -> None:
        """Raises UserError where the losses were not finite for `max_bad_steps` updates in a row."""
        bad = window.bad_steps
        if bad < self._config.max_bad_steps:
            return
        newest = self._checkpoints.latest()
        good = "there is no checkpoint yet" if newest is None else f"the newest checkpoint, of update {newest}, is good"
        raise UserError(
            f"the losses were not finite for {bad} updates, from update {step - bad + 1} to {step}; {good}: "
            "lower optimizer.lr and optimizer.glr, or set precision.compute to float32"
        )

    def finish(self, step: int) -> None:
        """Returns when the checkpoint of `step` is complete.

        Raises:
            UserError: there is none, as it could not be written, or the losses were not finite.
        """
        self._wait()
        newest = self._checkpoints.latest()
        if newest != step:
            kept = "there is none" if newest is None else f"the newest is of update {newest}"
            raise UserError(
                f"update {step} was reached and has no checkpoint, for the reason above; {kept}: "
                "run the same command again to go on from there"
            )

    def _wait(self) -> None:
        try:
            seconds = self._checkpoints.wait()
        except SaveError as error:
            self._failed(error)
        else:
            if seconds is not None:
                self._seconds = seconds
                _log.info("saved checkpoint %s in %.1f s", self._checkpoints.latest(), seconds)

    def _failed(self, error: SaveError) -> None:
        if self._config.on_failed_save == "stop":
            raise UserError(f"{error}; make space, then run the same command again") from error
        _log.warning("%s; the run goes on", error)
