"""A trace of some updates of a run, for TensorBoard's profiler, Perfetto or xprof."""

import logging
import os
import re
from typing import Any

import jax

from sid_jax.errors import UserError

_log = logging.getLogger(__name__)


class Profile:
    """Traces the updates START < step <= STOP, as far as this start of the run does them.

    Args:
      window: "START:STOP" in updates of the run; empty: no trace.
      folder: where the trace is written.

    Raises:
      UserError: the window is something else.
    """

    def __init__(self, window: str, folder: os.PathLike | str) -> None:
        self._folder = os.fspath(folder)
        self._start, self._stop = parse(window) if window else (-1, -1)
        self._tracing = False

    def before(self, step: int) -> None:
        """Begins the trace if it is time; call this after `step` updates, before the next one."""
        if not self._tracing and self._start <= step < self._stop:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def after(self, step: int, result: Any) -> None:
        """Ends the trace if it is time; call this after update `step`.

        Args:
          step: updates so far.
          result: arrays that the update has computed; the trace ends when they are there.
        """
        if self._tracing and step >= self._stop:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Writes the trace if one has begun."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            _log.info("a trace of updates %d to %d is in %s", self._start + 1, self._stop, self._folder)


def parse(window: str) -> tuple[int, int]:
    """(START, STOP) of "START:STOP".

    Raises:
      UserError: the window is something else, or STOP is not after START.
    """
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", window)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(f"--profile is {window!r}: use START:STOP, counts of updates such as 20:25")
    return int(match[1]), int(match[2])
