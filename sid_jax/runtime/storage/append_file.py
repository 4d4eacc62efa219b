"""A file that only grows, on a disk or in a bucket, and that loses nothing while its disk is full."""

import contextlib
import logging
import os
import time

from etils import epath

from sid_jax.runtime.storage.files import is_remote, write_whole
from sid_jax.runtime.storage.small_files import check_regular

UPLOAD_SECONDS = 60  # at least so long between two uploads of a file in a bucket, unless `flush` asks for one

_log = logging.getLogger(__name__)


class AppendFile:
    """Appends to a file.

    What can't be written is kept, reported once through logging, and tried again with all that follows. Once a full
    disk has space again, the file is what it would have been.

    Args:
      path: local or gs://; made if it is not there.

    Raises:
      UserError: what is there is no regular file, which might wait for a reader for good.
    """

    def __init__(self, path: os.PathLike | str) -> None:
        self._path = epath.Path(path)
        self._waiting = b""  # not written yet
        self._failing = False
        if is_remote(path):
            # Nothing can be appended in a bucket, so the whole content is kept, and uploaded now and then.
            self._whole = self._path.read_bytes() if self._path.exists() else b""
            self._uploaded = time.monotonic()
            self._file = None
        else:
            check_regular(self._path)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  (closed by `close`)
            self._size = self._file.tell()

    def append(self, data: bytes) -> None:
        """Adds bytes: on a disk at once, in a bucket not before `UPLOAD_SECONDS` have passed since the last upload.

        Does not fail if they can't be written.
        """
        self._waiting += data
        if self._file is None and time.monotonic() - self._uploaded < UPLOAD_SECONDS:
            return
        try:
            self._write()
        except OSError as error:
            if not self._failing:
                self._failing = True
                _log.warning(
                    "%s can't be written: %s; what is due is kept and tried again", self._path, error.strerror or error
                )

    def flush(self) -> None:
        """Returns when all that was appended is on the disk, or in the bucket.

        Raises:
          OSError: it can't be written.
        """
        self._write()
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Tries once more to write what is left, and closes the file."""
        self.append(b"")
        if self._file is None:
            self._uploaded = -UPLOAD_SECONDS
            self.append(b"")
        else:
            self._file.close()

    def _write(self) -> None:
        if not self._waiting:
            return
        if self._file is None:
            write_whole(self._path, self._whole + self._waiting)
            self._whole += self._waiting
            self._uploaded = time.monotonic()
        else:
            try:
                written = 0
                while written < len(self._waiting):
                    written += self._file.write(self._waiting[written:])
            except OSError:
                # Half a line must not stay behind, since the rest may never follow; cutting a file needs no space.
                with contextlib.suppress(OSError):
                    self._file.truncate(self._size)
                raise
            self._size += written
        self._waiting, self._failing = b"", False
