"""Preemption: a signal that the machine is about to be taken away, after which all processes save and end together.

SIGTERM is that signal: batch systems, Kubernetes and Cloud TPU send it some time (often 30 s) before they kill. A
process that is alone takes SIGHUP for the same, and ends at once while there is nothing to save (see `ending`). Of
several processes the first that gets SIGTERM tells the others through JAX's coordination service, which chooses an
update that none of them has passed. All processes end after that update, so that they save the same state.
"""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from sid_jax.runtime.devices.ending import EXIT_CODE as EXIT_CODE
from sid_jax.runtime.devices.ending import Ending, hearing


class Preempted(Exception):
    """The run was told to end, has saved, and can go on; the message says where the run is."""


class Preemption:
    """Whether the process was told to end; see `watching`."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending

    def reached(self, step: int) -> bool:
        """Whether the run should end after `step` updates. Every process calls this after each update.

        From the first call on there is something to save: a signal does not end the process any more.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        self._ending.later()
        return self._ending.told

    @property
    def told(self) -> bool:
        """Whether a signal has come to this process, which is the only one."""
        return self._ending.told


@contextlib.contextmanager
def watching() -> Iterator[Preemption]:
    """A context in which a signal ends the process at once before the first update, and later is told by Preemption.

    Of several processes JAX takes the signal, since `jax.distributed.initialize`.
    """
    if jax.process_count() > 1:
        yield Preemption(Ending())
        return
    with hearing() as ending:
        yield Preemption(ending)
