"""The curves of a run, however long it is, in a bounded number of points."""

import math
from collections.abc import Mapping
from typing import Any

MOST_POINTS = 1000


class Curves:
    """Points of named values over updates.

    Where there would be too many points, neighbours become one, their mean: the same lines of a log give the same
    points, whether they come one by one as the run trains or all at once from a file.

    Args:
      most: points that are kept, an even number.
    """

    def __init__(self, most: int = MOST_POINTS) -> None:
        self._most, self._lines_a_point = most, 1
        self._points: list[_Point] = []

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds the values of a line: name to number, or to None where there is none."""
        if not self._points or self._points[-1].lines >= self._lines_a_point:
            if len(self._points) == self._most:
                pairs = zip(self._points[::2], self._points[1::2], strict=True)
                self._points = [one.joined(other) for one, other in pairs]
                self._lines_a_point *= 2
            self._points.append(_Point())
        self._points[-1].add(step, values)

    @property
    def steps(self) -> list[int]:
        """The update of each point, the last one that it stands for."""
        return [point.step for point in self._points]

    @property
    def names(self) -> list[str]:
        """Of all values, in the order in which they first came."""
        return list(dict.fromkeys(name for point in self._points for name in point.sums))

    def of(self, name: str) -> list[float | None]:
        """A value at each point; None where it has none."""
        return [point.mean(name) for point in self._points]


class _Point:
    """The means of some lines that follow each other."""

    def __init__(self) -> None:
        self.step, self.lines = 0, 0
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        self.step, self.lines = step, self.lines + 1
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1

    def joined(self, later: "_Point") -> "_Point":
        both = _Point()
        both.step, both.lines = later.step, self.lines + later.lines
        for name in {**self.sums, **later.sums}:
            both.sums[name] = self.sums.get(name, 0.0) + later.sums.get(name, 0.0)
            both.counts[name] = self.counts.get(name, 0) + later.counts.get(name, 0)
        return both

    def mean(self, name: str) -> float | None:
        # Seven digits, which is what a float32 has, and half the size of a float64.
        return float(f"{self.sums[name] / self.counts[name]:.7g}") if name in self.sums else None
