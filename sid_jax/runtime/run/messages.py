"""What a run says: on the terminal, and with the time in `run.log` of its workdir, over all of its starts.

Everything in `sid_jax` that has something to tell uses Python's logging; here is where that ends up. Warnings come from
every process, anything else from the first.
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
def telling(workdir: epath.Path) -> Iterator[None]:
    """Within it, what is logged in `sid_jax` goes to stderr, between the lines of a progress bar, and to the file."""
    handlers: list[logging.Handler] = [_Terminal()]
    file = None
    if processes.is_first():
        file = AppendFile(workdir / "run.log")
        handlers.append(_File(file))
    level, propagate = _LOGGER.level, _LOGGER.propagate
    _LOGGER.propagate = False  # libraries give the root logger a handler of its own, which would say it again
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
        name = f"process {jax.process_index()}: " if jax.process_count() > 1 else ""
        level = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(f"{name}{level}{record.getMessage()}", file=sys.stderr)


class _File(logging.Handler):
    def __init__(self, file: AppendFile):
        super().__init__()
        self._file = file
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._file.append((self.format(record) + "\n").encode())
