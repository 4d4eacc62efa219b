"""Whether a run's folder is still the one that the run began with."""

import os

from etils import epath

from sid_jax.runtime.storage.files import is_remote


class Presence:
    """Remembers a folder on a disk, to notice that it was removed, moved, or made anew under its name.

    A bucket has no folders, and what is removed there is missed when it is read.

    Args:
      folder: one that may be there or not.
    """

    def __init__(self, folder: epath.Path) -> None:
        self._folder = folder
        self._seen = self._identity()

    def lost(self) -> bool:
        """Whether the folder was there and is no more. A disk that does not answer has lost nothing."""
        return self._seen is not None and self._identity(otherwise=self._seen) != self._seen

    def _identity(self, otherwise: tuple[int, int] | None = None) -> tuple[int, int] | None:
        if is_remote(self._folder):
            return None
        try:
            status = os.stat(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return otherwise
        return status.st_dev, status.st_ino
