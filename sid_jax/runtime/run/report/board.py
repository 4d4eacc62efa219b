"""The page of a run that trains, kept up to date."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from PIL import Image

from sid_jax.runtime.run.report.page import FILE, GRIDS, Changes, Page

_log = logging.getLogger(__name__)


class Report:
    """The `Board` that is `report.html`. It is written where the log is flushed, which is before each checkpoint.

    What goes wrong is reported through logging, and the run goes on: it is a picture of the run, and not the run.

    Args:
      workdir: the run's folder, local or gs://.
      settings: the resolved config as nested dicts.
      changes: those of the settings that are shown.
      resumed_step: the update that the run goes on from, up to which the page has what is in the folder.
    """

    def __init__(
        self, workdir: epath.Path, settings: Mapping[str, Any], changes: Changes, resumed_step: int = 0
    ) -> None:
        self._page = Page(workdir, settings, changes)
        if resumed_step:
            self._attempt(lambda: self._page.load(resumed_step))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""
        self._page.add_line(step, values)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Adds a sample grid; other pictures are not shown by update."""
        if name == GRIDS:
            self._attempt(lambda: self._page.add_grid(step, image))

    def flush(self) -> None:
        """Writes the page of a run that goes on, without what belongs to its end."""
        self._attempt(lambda: self._page.write(ended=False))

    def close(self) -> None:
        """Writes the page."""
        self.flush()

    def finish(self) -> None:
        """Writes the page of a run that has ended, from what is in its folder."""
        self._attempt(lambda: self._page.write(ended=True))

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # of whatever kind, as clients of buckets have
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            file = self._page.workdir / FILE
            _log.warning("%s can't be written: %s; the run goes on", file, " ".join(reason.split()))
