"""When a checkpoint is due, and which of those that are there stay."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the newest, those at certain steps, and the best.

    newest: how many of the newest, at least 1.
    every: updates; those at multiples of it stay for good; 0: none.
    best: how many of the best by `metric`; 0: none.
    metric: the name of a logged value.
    mode: "min" or "max", which values of it are good.
    """

    newest: int = 2
    every: int = 0
    best: int = 0
    metric: str = ""
    mode: str = "min"

    def __post_init__(self):
        if self.newest < 1:
            raise UserError(f"keep_checkpoints is {self.newest}: keep at least 1")
        for name, value in (("keep_every", self.every), ("keep_best", self.best)):
            if value < 0:
                raise UserError(f"{name} is {value}: use 0 or a positive number")
        if self.best and not self.metric:
            raise UserError("keep_best_by is empty: name the metric that keep_best goes by")
        if self.mode not in ("min", "max"):
            raise UserError(f"keep_best_mode is {self.mode!r}: use min or max")

    @classmethod
    def of(cls, config: ConfigDict) -> "Keep":
        """Which of a run's checkpoints stay, by its settings."""
        return cls(
            config.keep_checkpoints, config.keep_every, config.keep_best, config.keep_best_by, config.keep_best_mode
        )

    def kept(self, steps: Sequence[int], values: Mapping[int, float]) -> set[int]:
        """Those of the steps whose checkpoints stay.

        Args:
            steps: of all checkpoints.
            values: step to value of the metric, for those that have one; one that is not finite is no value.
        """
        ordered = sorted(steps)
        sign = 1 if self.mode == "min" else -1
        measured = [step for step in ordered if math.isfinite(values.get(step, math.nan))]
        best = sorted(measured, key=lambda step: sign * values[step])[: self.best]
        return {*ordered[-self.newest :], *best, *(step for step in ordered if self.every and step % self.every == 0)}


class Schedule:
    """Says when a checkpoint is due: after so many updates, or so many minutes, since the last.

    Args:
        every: updates between two, counted from the first update of the run.
        minutes: at most this long between two, found out where `tick` is called; 0: no matter how long.
    """

    def __init__(self, every: int, minutes: float = 0.0):
        self._every, self._minutes = every, minutes
        self._last = time.monotonic()
        self._late = False

    def tick(self) -> None:
        """Looks at the clock of the first process; all processes call it after the same updates."""
        if self._minutes:
            late = time.monotonic() - self._last >= 60 * self._minutes
            self._late |= bool(processes.gather(late)[0])

    def due(self, step: int) -> bool:
        """Whether one should be saved after `step` updates."""
        return self._late or step % self._every == 0

    def missed(self) -> None:
        """Lets the next one be due after the next update."""
        self._late = True

    def saved(self) -> None:
        """Counts the minutes from now."""
        self._last = time.monotonic()
        self._late = False
