"""Where a run's curves and pictures are shown, besides its own files: what the log asks of such a place."""

from collections.abc import Mapping
from typing import Protocol

from PIL import Image


class Board(Protocol):
    """A writer of scalars and pictures."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Adds a picture."""

    def flush(self) -> None:
        """Writes all that was added.

        Raises:
          OSError: it can't be written.
        """

    def close(self) -> None:
        """Writes what can be written, and ends."""
