"""How far a run is: a bar on a terminal, or a plain line now and then where the output goes to a file."""

import io
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import jax
from tqdm import tqdm

from sid_jax.runtime.cli.streams import unbreakable

PLAIN_SECONDS = 15.0  # between two lines where there is no terminal

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left{postfix}"


class Progress:
    """Shows images, images/s, time left and the latest losses; silent on every process but the first.

    Speed and time left are counted from the first update on, which compiling comes before.

    Args:
      total: images of the whole run.
      done: images before this process began.
      file: where it is shown; None: stderr.
      plain_seconds: seconds between two lines if `file` is no terminal.
      unit: what is counted.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        file: TextIO | None = None,
        plain_seconds: float = PLAIN_SECONDS,
        unit: str = "images",
    ) -> None:
        self._file = unbreakable(file or sys.stderr)
        self._shows = jax.process_index() == 0
        self._plain = not _is_terminal(self._file)
        self._plain_seconds = plain_seconds
        self._said = time.monotonic()
        self._counts = False
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=f" {unit}",
            unit_scale=total >= 1_000_000,
            bar_format=_BAR.replace("|{bar}|", ":") if self._plain else _BAR,
            dynamic_ncols=not self._plain,
            file=io.StringIO() if self._plain else self._file,
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
        if self._plain and time.monotonic() - self._said >= self._plain_seconds:
            self._say_line()

    def _begin(self, images: int) -> None:
        self._counts = True
        self._bar.unpause()
        self._bar.n = self._bar.initial = self._bar.last_print_n = images
        self._bar.refresh()

    def say(self, text: str) -> None:
        """Prints a line of text without breaking the bar."""
        if self._shows:
            tqdm.write(text, file=self._file)
            self._file.flush()

    def close(self) -> None:
        """Shows the last state, and ends the bar's line."""
        if self._shows and not self._bar.disable:
            self._bar.refresh()
            if self._plain:
                self._say_line()
            self._bar.close()

    def _say_line(self) -> None:
        self._said = time.monotonic()
        print(str(self._bar).strip(), file=self._file, flush=True)


def _is_terminal(file: TextIO) -> bool:
    if not file.isatty():
        return False
    try:
        # A terminal that nobody looks at, as in a container, may have no lines; tqdm would show nothing there.
        return os.get_terminal_size(file.fileno()).lines > 0
    except OSError:
        return True
