"""How far something is: a bar on a terminal, or a plain line now and then where the output goes to a file."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TextIO, TypeVar

import jax
from tqdm import tqdm

from sid_jax.runtime.cli.streams import unbreakable

PLAIN_SECONDS = 15.0  # between two lines where there is no terminal
PATIENCE = 3.0  # seconds that something takes before its progress is shown

_T = TypeVar("_T")
_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left{postfix}"


def following(
    items: Iterable[_T],
    total: int,
    name: str,
    unit: str = "images",
    size: Callable[[_T], int] = lambda item: 1,
    done: int = 0,
) -> Generator[_T, None, None]:
    """The items, while it is shown how far they are; what takes a few seconds, or less, is not shown at all.

    Args:
      items: what is made, read or written one after the other.
      total: of the sizes of all.
      name: what is done, such as "writing the unet".
      unit: what is counted.
      size: of an item.
      done: of the total, before these items.
    """
    # Some commands need no devices, and so ask for none, which another program may hold.
    shows = not jax.distributed.is_initialized() or jax.process_index() == 0
    progress = Progress(total, done, unit=unit, name=name, patience=PATIENCE, shows=shows)
    with contextlib.closing(progress):
        for item in items:
            yield item
            done += size(item)
            progress.update(done)


class Progress:
    """Shows images, images/s, time left and the latest losses; silent on every process but the first.

    Speed and time left are counted from the first update on, which compiling comes before.

    Args:
      total: images of the whole run.
      done: images before this process began.
      file: where it is shown; None: stderr.
      plain_seconds: seconds between two lines if `file` is no terminal; None: `PLAIN_SECONDS`.
      unit: what is counted.
      name: what is done; of a run it needs no words.
      patience: seconds before anything is shown. What has ended by then says nothing.
      shows: whether this process shows it; None: the first one does.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        file: TextIO | None = None,
        plain_seconds: float | None = None,
        unit: str = "images",
        name: str = "",
        patience: float = 0.0,
        shows: bool | None = None,
    ) -> None:
        self._file = unbreakable(file or sys.stderr)
        self._shows = jax.process_index() == 0 if shows is None else shows
        self._plain = not _is_terminal(self._file)
        self._plain_seconds = PLAIN_SECONDS if plain_seconds is None else plain_seconds
        self._said = self._began = time.monotonic()
        self._said_of: float | None = None
        self._patience = patience
        self._counts = False
        self._bar = tqdm(
            desc=f"{name}: " if name else None,
            total=total,
            initial=done,
            unit=f" {unit}",
            unit_scale=total >= 1_000_000,
            bar_format=_BAR.replace("|{bar}|", ":") if self._plain else _BAR,
            dynamic_ncols=not self._plain,
            file=io.StringIO() if self._plain else self._file,
            delay=patience,
            disable=not self._shows,
        )

    def update(self, images: int, values: Mapping[str, Any] | None = None) -> None:
        """Shows that `images` are done in all, and from now on `values` (name to number)."""
        if not self._shows:
            return
        if values:
            self._bar.set_postfix({name: f"{float(value):.4g}" for name, value in values.items()}, refresh=False)
        if self._counts:
            self._bar.update(images - self._bar.n)
        else:
            self._begin(images)
        now = time.monotonic()
        if self._plain and now - self._said >= self._plain_seconds and now - self._began >= self._patience:
            self._say_line()

    def _begin(self, images: int) -> None:
        self._counts = True
        self._bar.unpause()
        self._bar.n = self._bar.initial = self._bar.last_print_n = images
        if not self._patience:
            self._bar.refresh()

    def say(self, text: str) -> None:
        """Prints a line of text without breaking the bar."""
        if self._shows:
            tqdm.write(text, file=self._file)
            self._file.flush()

    def close(self) -> None:
        """Shows the last state, and ends the bar's line."""
        if self._shows and not self._bar.disable:
            if time.monotonic() - self._began >= self._patience:
                self._bar.refresh()
                if self._plain and not (self._patience and self._is_said()):
                    self._say_line()
            self._bar.close()

    def _is_said(self) -> bool:
        """Whether there is nothing to add to the plain lines: the last one has it all, or there was no need of one."""
        return self._said_of in (None, self._bar.n)

    def _say_line(self) -> None:
        self._said, self._said_of = time.monotonic(), self._bar.n
        print(str(self._bar).strip(), file=self._file, flush=True)


def _is_terminal(file: TextIO) -> bool:
    if not file.isatty():
        return False
    try:
        # A terminal that nobody looks at, as in a container, may have no lines; tqdm would show nothing there.
        return os.get_terminal_size(file.fileno()).lines > 0
    except OSError:
        return True
