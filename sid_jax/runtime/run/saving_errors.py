"""What goes wrong with checkpoints, in one line, and on all processes alike."""

import logging
import os
import re
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


def no_traceback_of_orbax(record: logging.LogRecord) -> bool:
    """False for Orbax's tracebacks of errors: it logs each several times, and raises the error, which we report."""
    return not (record.exc_info and "orbax" in record.pathname)
