"""What goes wrong with checkpoints, in one line, and on all processes alike."""

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import TypeVar

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes

_T = TypeVar("_T")


class UnreadableError(Exception):
    """A checkpoint can't be read; the message is the reason, in one line."""


def on_all(function: Callable[[], _T]) -> _T:
    """The function's result; all processes call this together.

    Raises:
      UnreadableError: the function fails, here or on another process.
    """
    failure: Exception | None = None
    try:
        result = function()
    except Exception as error:
        failure = error
    if processes.gather(failure is not None).any():
        reason = one_line(failure) if failure else "another process can't read it"
        raise UnreadableError(reason) from failure
    return result


def one_line(error: Exception) -> str:
    """What went wrong. Of an error of the operating system, which TensorStore wraps in many words, only its name."""
    text = " ".join(str(error).split())
    if isinstance(error, UnreadableError | UserError):
        return text
    code = re.search(r"os_error_code='(\d+)'", text)
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {text[:300]}"


def leave_out_echoes() -> None:
    """Leaves out what Orbax and TensorStore print of an error that they raise, which is reported in one line.

    On a full disk that would be hundreds of tracebacks: of each array that was still to be written.
    """
    logging.getLogger("absl").addFilter(_no_traceback_of_orbax)
    logging.getLogger("asyncio").addFilter(_no_error_of_tensorstore)
    if not isinstance(sys.unraisablehook, _LoopsClosed):
        sys.unraisablehook = _LoopsClosed(sys.unraisablehook)


def _no_traceback_of_orbax(record: logging.LogRecord) -> bool:
    """False for Orbax's tracebacks: it logs an error several times, and raises it."""
    return not (record.exc_info and "orbax" in record.pathname)


def _no_error_of_tensorstore(record: logging.LogRecord) -> bool:
    """False where asyncio complains that nobody has asked for an error: Orbax raises the first of many."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, ValueError) and "_error_code='" in str(error))


class _LoopsClosed:
    """A hook for errors that can't be raised, which leaves out what TensorStore has when Orbax did not wait for it.

    Args:
      before: the hook for all others.
    """

    def __init__(self, before: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._before = before

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed" and unraisable.object is None):
            self._before(unraisable)
