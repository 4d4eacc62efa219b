"""Timing by turns: whatever else the machine does falls on all sides alike, and what counts is the ratio."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def seconds_by_turns(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """How long each call took. Every side is called once before, to compile and to fill caches.

    Args:
      sides: by name, what is timed; it returns when the work is done.
      repeats: calls of each.
    """
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(each) for name, each in seconds.items()}
