"""Signals by which a process is told to end: SIGTERM, and SIGHUP, which comes when its terminal goes away.

Python calls a signal's handler between two steps of the main thread, so not while that compiles for minutes. What is
here hears at once: the interpreter writes each signal's number to a pipe, and a thread reads it.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the run is not done, nothing is wrong, and the same command goes on
SAYING_SECONDS = 5.0  # the longest that a process waits for its last line to be written: a terminal may be stopped

_LINE = "told to end where nothing is lost by it; run the same command again to go on"


class Ending:
    """Whether the process was told to end, and whether it ends at once; see `hearing`.

    told: whether a signal came.
    """

    def __init__(self) -> None:
        self.told = False
        self._at_once = True
        self._lock = threading.Lock()

    def later(self) -> None:
        """From now on there is something to lose: a signal sets `told`, and the process goes on."""
        with self._lock:
            self._at_once = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals, which the main thread calls when it comes to it."""
        self.told = True

    def listen(self, pipe: int, signals: frozenset[int]) -> None:
        """Reads numbers of signals until the pipe is closed."""
        while numbers := os.read(pipe, 64):
            if not signals.isdisjoint(numbers):
                self.told = True
                with self._lock:  # so that nothing can begin meanwhile that should not be lost
                    if self._at_once:
                        _end()


@contextlib.contextmanager
def hearing() -> Iterator[Ending]:
    """A context in which SIGTERM and SIGHUP end the process at once, with one line and `EXIT_CODE`; but see `later`.

    SIGHUP is left alone where it is ignored, as under `nohup`. Only the main thread can set handlers; in another one
    nothing is heard. Contexts may be nested: the inner one counts.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signals = (signal.SIGTERM,) if ignored else (signal.SIGTERM, signal.SIGHUP)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=ending.listen, args=(reading, frozenset(signals)), daemon=True)
    listener.start()
    pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, ending.handle) for number in signals}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe_before)
        os.close(writing)
        listener.join()
        os.close(reading)


def _end() -> NoReturn:
    """Ends the process with the line, whatever its other threads do."""
    saying = threading.Thread(target=_say, daemon=True)
    saying.start()
    saying.join(SAYING_SECONDS)
    os._exit(EXIT_CODE)


def _say() -> None:
    ours = logging.getLogger("sid_jax")
    if not ours.isEnabledFor(logging.INFO):
        print(_LINE, file=sys.stderr, flush=True)
        return
    ours.info(_LINE)
    for handler in ours.handlers:
        handler.flush()
