"""What a run says: on the terminal, and with the time in `run.log` of its workdir, over all of its starts.

Everything in `sid_jax` that has something to say uses Python's logging; here the messages find their way out. Warnings
come from every process, other messages from the first.
"""

import contextlib
import logging
from collections.abc import Iterator

from etils import epath

from sid_jax.runtime.cli import terminal
from sid_jax.runtime.devices import processes
from sid_jax.runtime.storage.append_file import AppendFile


@contextlib.contextmanager
def logging_to(workdir: epath.Path) -> Iterator[None]:
    """A context in which what `sid_jax` logs goes to stderr and to `run.log` in a folder.

    On stderr it does not break a progress bar. Only the first process writes the file.
    """
    if not processes.is_first():
        with terminal.showing(logging.WARNING):
            yield
        return
    with contextlib.closing(AppendFile(workdir / "run.log")) as file, terminal.showing(logging.INFO, _File(file)):
        yield


class _File(logging.Handler):
    def __init__(self, file: AppendFile) -> None:
        super().__init__()
        self._file = file
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a line with the time and the level."""
        # A name that is not UTF-8 has letters that can't be encoded.
        self._file.append((self.format(record) + "\n").encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Writes out what a file in a bucket waits with, if that can be."""
        with contextlib.suppress(OSError, ValueError):  # a ValueError where the file is closed
            self._file.flush()
