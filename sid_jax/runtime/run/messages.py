"""What a run says: on the terminal, and with the time in `run.log` of its workdir, over all of its starts.

Everything in `sid_jax` that has something to say uses Python's logging; here the messages find their way out. Warnings
come from every process, other messages from the first.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

import jax
from etils import epath
from tqdm import tqdm

from sid_jax.runtime.devices import processes
from sid_jax.runtime.storage.append_file import AppendFile

_LOGGER = logging.getLogger("sid_jax")


@contextlib.contextmanager
def logging_to(workdir: epath.Path) -> Iterator[None]:
    """A context in which what `sid_jax` logs goes to stderr and to `run.log` in a folder.

    On stderr it does not break a progress bar. Only the first process writes the file.
    """
    handlers: list[logging.Handler] = [_Terminal()]
    file = None
    if processes.is_first():
        file = AppendFile(workdir / "run.log")
        handlers.append(_File(file))
    level, propagate = _LOGGER.level, _LOGGER.propagate
    _LOGGER.propagate = False  # the root logger may have a library's handler, which would say everything again
    _LOGGER.setLevel(logging.INFO if processes.is_first() else logging.WARNING)
    for handler in handlers:
        _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagate
        if file is not None:
            file.close()


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message; of several processes each says which one it is."""
        name = f"process {jax.process_index()}: " if jax.process_count() > 1 else ""
        level = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(f"{name}{level}{record.getMessage()}", file=sys.stderr)


class _File(logging.Handler):
    def __init__(self, file: AppendFile) -> None:
        super().__init__()
        self._file = file
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a line with the time and the level."""
        self._file.append((self.format(record) + "\n").encode())
