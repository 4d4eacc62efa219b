"""The metrics of the updates since the last line of the log."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

_COUNTS = ("dropped_fake", "dropped_generator", "dropped_real", "nonfinite_grads", "corrupted_images")
_LOSSES = ("fake_loss", "generator_loss")


class Window:
    """Collects the metrics of each update without waiting for them, and sums them up when a line is due.

    Args:
      batch: images of an update.
      pending: what the method `pending` returned when the checkpoint was saved from which the run goes on.
    """

    def __init__(self, batch: int, pending: Mapping[str, Any] | None = None) -> None:
        self._batch = batch
        self._steps: list[Mapping[str, Any]] = list((pending or {}).get("steps", ()))
        self._bad_before: int = (pending or {}).get("bad_steps", 0)
        self._finite_before = pending is not None

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        """Adds the metrics of one update: name to scalar."""
        self._steps.append(metrics)

    def summary(self) -> dict[str, float]:
        """The metrics of all updates: counts are summed, anything else is averaged."""
        steps = self._fetch()
        names = steps[0]
        sums = {name: sum(step[name] for step in steps) for name in names}
        return {name: value if name in _COUNTS else value / len(steps) for name, value in sums.items()}

    @property
    def bad_steps(self) -> int:
        """How many updates in a row, up to the last one, had a loss that is not finite, or no image left for one."""
        count = self._bad_before
        for step in self._fetch():
            count = count + 1 if self._is_bad(step) else 0
        return count

    @property
    def ever_finite(self) -> bool:
        """Whether any update began well, as the first one does if its numbers are good: its first loss is of networks
        that it has not changed yet. A run that goes on from a checkpoint has had such updates."""
        return self._finite_before or any(
            math.isfinite(step["fake_loss"]) and step["dropped_fake"] < self._batch for step in self._fetch()
        )

    def restart(self) -> None:
        """Begins the next line."""
        self._bad_before, self._finite_before = self.bad_steps, self.ever_finite
        self._steps = []

    def pending(self) -> dict[str, Any]:
        """What has been added since `restart`, as JSON has it."""
        return {"steps": self._fetch(), "bad_steps": self._bad_before}

    def _is_bad(self, step: Mapping[str, float]) -> bool:
        infinite = not all(math.isfinite(step[name]) for name in _LOSSES)
        return infinite or max(step["dropped_fake"], step["dropped_generator"]) >= self._batch

    def _fetch(self) -> Sequence[Mapping[str, float]]:
        self._steps = [{name: float(value) for name, value in step.items()} for step in jax.device_get(self._steps)]
        return self._steps
