"""Preemption: a signal that the machine is about to be taken away, after which all processes save and end together.

SIGTERM is that signal: batch systems, Kubernetes and Cloud TPU send it some time (often 30 s) before they kill. With
several processes the first that gets it tells the others through JAX's coordination service, which chooses an update
that none of them has passed; each ends after that one, so that they save the same state.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not done, and nothing wrong; the same command goes on


class Preempted(Exception):
    """The run was told to end, has saved, and can go on; the message says where it is."""


class Preemption:
    """Whether the process was told to end; see `watching`."""

    def __init__(self):
        self._told = False

    def reached(self, step: int) -> bool:
        """Whether the run should end after `step` updates; called after each, by every process."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._told

    def _tell(self, number, frame) -> None:
        self._told = True


@contextlib.contextmanager
def watching() -> Iterator[Preemption]:
    """Within it SIGTERM does not end the process, but is told by the Preemption.

    With several processes JAX has taken care of the signal since `jax.distributed.initialize`.
    """
    preemption = Preemption()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield preemption
        return
    before = signal.signal(signal.SIGTERM, preemption._tell)
    try:
        yield preemption
    finally:
        signal.signal(signal.SIGTERM, before)
