"""Waiting in a thread until a checkpoint is complete, while the run trains on."""

import concurrent.futures
import threading
import time
from collections.abc import Callable


class Completion:
    """A checkpoint that is being saved, whose completion a thread waits for.

    Attributes:
      step: of the checkpoint.
      seconds: how long it took, once it is done.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.seconds = 0.0
        self._began = time.perf_counter()
        self._future: concurrent.futures.Future[None] = concurrent.futures.Future()

    def begin(self, complete: Callable[[], None]) -> None:
        """Calls the function in a thread, which does not keep the process from ending."""
        threading.Thread(target=self._run, args=(complete,), name="checkpoint", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether the function has ended."""
        return self._future.done()

    def result(self) -> None:
        """Waits for the function, and raises what it has raised."""
        self._future.result()

    def _run(self, complete: Callable[[], None]) -> None:
        try:
            complete()
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self.seconds = time.perf_counter() - self._began
            self._future.set_result(None)
