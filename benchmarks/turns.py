"""Timing by turns: whatever else the machine does falls on all sides alike, and what counts is the ratio."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

PAUSE, LEAST = 0.05, 0.2
"""Seconds before a turn, and of a turn at least. When PyTorch's call is over its threads go on spinning for some
milliseconds, and take a core of whoever comes next; and after a pause the caches are cold. Neither shows in a turn of
many calls."""


def seconds_by_turns(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """How long a call took, of each turn. Every side is called before, to compile and to fill caches.

    Args:
      sides: by name, what is timed; it returns when the work is done.
      repeats: turns of each.
    """
    for call in sides.values():
        call()
    calls = {name: math.ceil(LEAST / _seconds(call, 1)) for name, call in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            time.sleep(PAUSE)
            seconds[name].append(_seconds(call, calls[name]))
    return seconds


def _seconds(call: Callable[[], Any], calls: int) -> float:
    """Of one call, as the mean of so many."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(each) for name, each in seconds.items()}
