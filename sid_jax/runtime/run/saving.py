"""A run's checkpoints as it trains: when one is saved, and what happens when one can't be."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from sid_jax.errors import UserError
from sid_jax.runtime.run.checkpoints import Checkpoints, SaveError
from sid_jax.runtime.run.log import RunLog
from sid_jax.runtime.run.retention import Schedule
from sid_jax.runtime.run.window import Window

ON_FAILED_SAVE = ("continue", "stop")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavingPolicy:
    """When a run saves, and when it gives up.

    Attributes:
      every: updates between two checkpoints.
      minutes: at most so many between two checkpoints; 0: any number.
      max_bad_steps: the run ends after so many updates in a row whose losses are not finite.
      on_failed_save: what the run does when a checkpoint can't be written, as on a full disk. "continue": it trains on,
        and saves again when the next one is due. "stop": it ends.
      best_by: the value that decides which checkpoints are best; empty: none does.
    """

    every: int
    minutes: float = 0.0
    max_bad_steps: int = 20
    on_failed_save: str = "continue"
    best_by: str = ""

    @classmethod
    def from_config(cls, settings: Mapping[str, Any]) -> "SavingPolicy":
        """The policy of a run, by its resolved config."""
        return cls(
            every=settings["checkpoint_every"],
            minutes=settings["checkpoint_minutes"],
            max_bad_steps=settings["max_bad_steps"],
            on_failed_save=settings["on_failed_save"],
            best_by=settings["keep_best_by"] if settings["keep_best"] else "",
        )


class Saving:
    """Saves checkpoints on schedule, writes the log out before each, and reports how that went.

    Args:
      checkpoints: where they are saved.
      log: the run's log, which must be on the disk as far as the checkpoint is.
      policy: when to save, and when to give up.
      settings: the resolved config as nested dicts, which every checkpoint has in it.
      completed: is told the step of each checkpoint that is complete.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        log: RunLog,
        policy: SavingPolicy,
        settings: Mapping[str, Any],
        completed: Callable[[int], None] | None = None,
    ) -> None:
        self._checkpoints, self._log = checkpoints, log
        self._policy, self._settings = policy, settings
        self._completed = completed
        self._schedule = Schedule(policy.every, policy.minutes)
        self._seconds: float | None = None

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be saved after `step` updates."""
        return self._schedule.due(step)

    def measured(self, values: Mapping[str, float]) -> None:
        """Makes a checkpoint due where these values of the student decide which are best: without it none has them."""
        if self._policy.best_by in values:
            self._schedule.missed()

    def poll(self) -> dict[str, float]:
        """Finds out how saving goes, and reports it; call this before each line of the log.

        Returns:
          values for that line: how long a checkpoint took, where one was completed since the last line.
        """
        self._schedule.tick()
        # Several processes find out together, when they save the next checkpoint.
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
        """Saves a checkpoint, after the one before is complete.

        Where the losses of the last update are not finite, nothing is saved, so that every checkpoint is good to go
        back to; a checkpoint is then due after the next update.

        Args:
          step: updates so far.
          state: a pytree of arrays.
          data_position: JSON-able.
          window: the metrics that no line of the log has yet.
          values: the metrics of this step's line of the log; empty if it has none.

        Raises:
          UserError: a checkpoint can't be written, and the policy is to stop.
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
            self._checkpoints.save(step, state, data_position, self._settings, metrics)
        except SaveError as error:
            self._failed(error)
        except OSError as error:
            self._failed(self._checkpoints.save_error(step, error))

    def stop_if_bad(self, window: Window, step: int) -> None:
        """Ends a run that trains on nothing.

        Args:
          window: the metrics up to the last update.
          step: updates so far.

        Raises:
          UserError: the losses were not finite for `max_bad_steps` updates in a row.
        """
        bad = window.bad_steps
        if bad < self._policy.max_bad_steps:
            return
        if bad == step and not window.ever_finite:
            raise UserError(
                f"the losses were not finite from the first update on, for {bad} updates: the teacher's weights or the "
                "real images have numbers that are not finite, or that precision.compute can't hold: look at what "
                "sid_jax.sample makes with the teacher, or set precision.compute to float32"
            )
        newest = self._checkpoints.latest()
        good = "there is no checkpoint yet" if newest is None else f"the newest checkpoint, of update {newest}, is good"
        raise UserError(
            f"the losses were not finite for {bad} updates, from update {step - bad + 1} to {step}; {good}: "
            "lower optimizer.fake_lr and optimizer.generator_lr, or set precision.compute to float32"
        )

    def finish(self, step: int) -> None:
        """Returns when the checkpoint of `step` is complete.

        Raises:
          UserError: there is none, since it could not be written, or since the losses were not finite.
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
                self._seconds, newest = seconds, self._checkpoints.latest()
                if self._completed is not None and newest is not None:
                    self._completed(newest)
                _log.info("saved checkpoint %s in %.1f s", self._checkpoints.latest(), seconds)

    def _failed(self, error: SaveError) -> None:
        if self._policy.on_failed_save == "stop":
            raise UserError(f"{error}; make space, then run the same command again") from error
        _log.warning("%s; the run goes on", error)
