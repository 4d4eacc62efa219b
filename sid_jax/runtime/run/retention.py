"""When a checkpoint is due, and which of those that are there stay."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes

MODES = ("min", "max")


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the newest, those at certain steps, and the best.

    Attributes:
      newest: how many of the newest, at least 1.
      every: checkpoints at multiples of so many updates stay for good; 0: none.
      best: how many of the best by `metric`; 0: none.
      metric: the name of a logged value.
      mode: "min" or "max": which values of the metric are good.

    Raises:
      UserError: a value that does not make sense.
    """

    newest: int = 2
    every: int = 0
    best: int = 0
    metric: str = ""
    mode: str = "min"

    def __post_init__(self) -> None:
        if self.newest < 1:
            raise UserError(f"keep_checkpoints is {self.newest}: keep at least 1")
        for name, value in (("keep_every", self.every), ("keep_best", self.best)):
            if value < 0:
                raise UserError(f"{name} is {value}: use 0 or a positive number")
        if self.best and not self.metric:
            raise UserError("keep_best_by is empty: name the metric that keep_best goes by")
        if self.mode not in MODES:
            raise UserError(f"keep_best_mode is {self.mode!r}: use {' or '.join(MODES)}")

    @classmethod
    def from_config(cls, settings: Mapping[str, Any]) -> "Keep":
        """Which of a run's checkpoints stay, by its resolved config."""
        return cls(
            newest=settings["keep_checkpoints"],
            every=settings["keep_every"],
            best=settings["keep_best"],
            metric=settings["keep_best_by"],
            mode=settings["keep_best_mode"],
        )

    def kept(self, steps: Sequence[int], values: Mapping[int, float]) -> set[int]:
        """Those of the steps whose checkpoints stay.

        Args:
          steps: of all checkpoints.
          values: step to value of the metric; a step may have none, and a value that is not finite is none.
        """
        ordered = sorted(steps)
        sign = 1 if self.mode == "min" else -1
        measured = [step for step in ordered if math.isfinite(values.get(step, math.nan))]
        best = sorted(measured, key=lambda step: sign * values[step])[: self.best]
        return {*ordered[-self.newest :], *best, *(step for step in ordered if self.every and step % self.every == 0)}


class Schedule:
    """Says when a checkpoint is due: after so many updates, or so many minutes, since the last one.

    Args:
      every: updates between two checkpoints, counted from the first update of the run.
      minutes: at most so many between two checkpoints, as far as `tick` is called in time; 0: any number.
    """

    def __init__(self, every: int, minutes: float = 0.0) -> None:
        self._every, self._minutes = every, minutes
        self._last = time.monotonic()
        self._overdue = False

    def tick(self) -> None:
        """Reads the clock of the first process; all processes call this after the same updates."""
        if self._minutes:
            overdue = time.monotonic() - self._last >= 60 * self._minutes
            self._overdue |= bool(processes.gather(overdue)[0])

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be saved after `step` updates."""
        return self._overdue or step % self._every == 0

    def missed(self) -> None:
        """Makes a checkpoint due, whatever the schedule says."""
        self._overdue = True

    def saved(self) -> None:
        """Counts the minutes from now on."""
        self._last = time.monotonic()
        self._overdue = False
