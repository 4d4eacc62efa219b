"""TensorBoard's event files.

tensorboardX encodes the events, but its writer is not used: the writer has a thread that ends when the disk is full,
and a queue that then holds up the training for good.
"""

import io
import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from sid_jax.runtime.storage.append_file import AppendFile
from sid_jax.runtime.storage.files import is_remote

LARGEST = 1024  # pixels; larger pictures are reduced, since `samples/` has them whole
_BUCKET_BYTES = 8 << 20  # a file in a bucket is uploaded whole each time, so at this size a new file is begun


class TensorBoard:
    """The `Board` that is a folder of event files.

    Args:
      folder: local or gs://; made if it is not there.
      first_step: TensorBoard hides what earlier files of the folder have of this step and of later ones.
    """

    def __init__(self, folder: os.PathLike | str, first_step: int) -> None:
        self._folder = epath.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files = 0
        self._open()
        self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=step, summary=Summary(value=points))

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Adds a picture, reduced to `LARGEST` pixels."""
        image = image.convert("RGB")
        image.thumbnail((LARGEST, LARGEST))
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=90)
        shown = Summary.Image(
            height=image.height, width=image.width, colorspace=3, encoded_image_string=encoded.getvalue()
        )
        self._add(step=step, summary=Summary(value=[Summary.Value(tag=name, image=shown)]))

    def flush(self) -> None:
        """Writes all that was added.

        Raises:
          OSError: it can't be written.
        """
        self._file.flush()

    def close(self) -> None:
        """Writes what can be written, and closes the file."""
        self._file.close()

    def _add(self, **event: Any) -> None:
        record = _record(Event(wall_time=time.time(), **event))
        if is_remote(self._folder) and self._size + len(record) > _BUCKET_BYTES:
            self._file.close()
            self._open()
        self._file.append(record)
        self._size += len(record)

    def _open(self) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{self._files}"
        self._file = AppendFile(self._folder / name)
        self._files, self._size = self._files + 1, 0
        self._file.append(_record(Event(wall_time=time.time(), file_version="brain.Event:2")))


def _record(event: Event) -> bytes:
    """The event as a TFRecord: length, checksum of the length, data, checksum of the data."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
