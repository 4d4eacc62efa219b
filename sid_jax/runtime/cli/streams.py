"""What a command prints: where it can't be written, because its reader, its terminal or the disk is gone or full, or
because the letters are not of the terminal's encoding, the command goes on all the same.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast


def unbreakable(stream: TextIO | None) -> TextIO:
    """A stream that writes to another one and never fails; the stream itself if it is such a one.

    What can't be written is left out, and letters that the encoding has not are written as escapes. None, which Python
    has for a stream that was closed before it began, is one that writes nothing.
    """
    made = stream if isinstance(stream, _Unbreakable) else _Unbreakable(stream)
    return cast(TextIO, made)


@contextlib.contextmanager
def unbreakable_output() -> Iterator[None]:
    """A context in which all that is printed goes to unbreakable streams.

    At its end a line on stderr says so if something is missing on stdout, unless nobody was reading it any more.
    """
    before = sys.stdout, sys.stderr
    stdout, stderr = _Unbreakable(before[0]), _Unbreakable(before[1])
    sys.stdout, sys.stderr = cast(TextIO, stdout), cast(TextIO, stderr)
    try:
        yield
    finally:
        stdout.finish()
        if stdout.lost is not None:
            stderr.write(f"warning: not all that was printed could be written: {stdout.lost}\n")
        stderr.finish()
        sys.stdout, sys.stderr = before


def open_standard_files() -> None:
    """Opens the standard files that are closed, as by `2>&-`: a file of the run would get their number, and output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


class _Unbreakable:
    """See `unbreakable`. All that is not here is the other stream's own.

    lost: why something is missing that somebody might have read; None: nothing is.
    """

    def __init__(self, stream: Any) -> None:
        self._stream: Any = stream._stream if isinstance(stream, _Unbreakable) else stream or _Nowhere()
        self.lost: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        """Two are equal that write to the same stream: tqdm looks for the bars on the stream that it writes to."""
        return isinstance(other, _Unbreakable) and other._stream is self._stream

    def __hash__(self) -> int:
        return id(self._stream)

    def write(self, text: str) -> int:
        """Writes as much as can be; the length of the text."""
        with self._going_on():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what waits, if that can be."""
        with self._going_on():
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether this is a terminal; one that is closed is none."""
        try:
            return bool(self._stream.isatty())
        except ValueError:
            return False

    def finish(self) -> None:
        """Writes what waits, or drops it: Python would try once more when it ends, and fail."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._note(error)
            self._drop()

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # a ValueError where the stream was closed
            self._note(error)

    def _note(self, error: OSError | ValueError) -> None:
        if isinstance(error, BrokenPipeError):
            self._drop()  # for good; what libraries write past Python goes nowhere too
        else:
            self.lost = self.lost or (error.strerror if isinstance(error, OSError) else None) or str(error)

    def _drop(self) -> None:
        """Lets all that the stream writes go nowhere, what waits in it too."""
        with contextlib.suppress(OSError, ValueError):
            number = self._stream.fileno()
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, number)
            os.close(nothing)
            self._stream.flush()


class _Nowhere(io.TextIOBase):
    """A stream that takes everything and keeps nothing."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Writes nothing."""
        return len(text)
