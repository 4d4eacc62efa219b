"""Where what `sid_jax` logs is shown: on stderr, each message a line that breaks no progress bar."""

import contextlib
import logging
import sys
from collections.abc import Iterator

import jax
from tqdm import tqdm

from sid_jax.runtime.cli.streams import unbreakable

LOGGER = logging.getLogger("sid_jax")


@contextlib.contextmanager
def showing(level: int = logging.WARNING, *others: logging.Handler) -> Iterator[None]:
    """A context in which what `sid_jax` logs from a level on is shown, and goes to other handlers, but to no library's.

    Within another such context this one counts.
    """
    before = LOGGER.level, LOGGER.propagate, LOGGER.handlers
    LOGGER.propagate = False  # the root logger may have a library's handler, which would say everything again
    LOGGER.setLevel(level)
    LOGGER.handlers = [_Terminal(), *others]
    try:
        yield
    finally:
        LOGGER.handlers = before[2]
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message; of several processes each says which one it is."""
        level = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(f"{_process()}{level}{record.getMessage()}", file=unbreakable(sys.stderr))


def _process() -> str:
    """Which process this is, if there are several. Asks for no devices, which may be what can't be had."""
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return ""
    return f"process {jax.process_index()}: "
