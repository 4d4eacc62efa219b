"""Preemption: a signal that the machine is about to be taken away, after which all processes save and end together.

SIGTERM is that signal: batch systems, Kubernetes and Cloud TPU send it some time (often 30 s) before they kill. Of
several processes the first that gets the signal tells the others through JAX's coordination service, which chooses an
update that none of them has passed. All processes end after that update, so that they save the same state.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the run is not done, nothing is wrong, and the same command goes on


class Preempted(Exception):
    """The run was told to end, has saved, and can go on; the message says where the run is."""


class Preemption:
    """Whether the process was told to end; see `watching`."""

    def __init__(self) -> None:
        self._told = False

    def reached(self, step: int) -> bool:
        """Whether the run should end after `step` updates. Every process calls this after each update."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._told

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told = True


@contextlib.contextmanager
def watching() -> Iterator[Preemption]:
    """A context in which SIGTERM does not end the process; the Preemption then says that the signal came.

    Of several processes JAX takes the signal, since `jax.distributed.initialize`.
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
