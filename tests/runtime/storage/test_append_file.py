import errno
import logging

import pytest

from sid_jax.runtime.storage import append_file
from sid_jax.runtime.storage.append_file import AppendFile


class Full:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room):
        self._file, self.room = file, room

    def write(self, data):
        written = self._file.write(bytes(data[: self.room]))
        self.room -= written
        if not written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_it_grows_over_several_openings(tmp_path):
    for text in (b"one\n", b"two\n"):
        file = AppendFile(tmp_path / "a")
        file.append(text)
        assert (tmp_path / "a").read_bytes().endswith(text)
        file.close()
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"


def test_on_a_full_disk_lines_wait(tmp_path, caplog):
    file = AppendFile(tmp_path / "a")
    file._file = Full(file._file, room=6)
    with caplog.at_level(logging.WARNING, logger="sid_jax"):
        for line in (b"one\n", b"two\n", b"three\n"):
            file.append(line)
        with pytest.raises(OSError, match="No space"):
            file.flush()
    assert (tmp_path / "a").read_bytes() == b"one\n"  # and no half of a line
    assert len(caplog.messages) == 1 and "No space left on device" in caplog.text
    file._file.room = 100
    file.append(b"four\n")
    file.flush()
    file.close()
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\nthree\nfour\n"


def test_in_a_bucket_it_is_uploaded_now_and_then(bucket, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(append_file.time, "monotonic", lambda: now[0])
    path = append_file.epath.Path(bucket) / "a"
    path.write_bytes(b"zero\n")
    file = AppendFile(path)
    file.append(b"one\n")
    assert path.read_bytes() == b"zero\n"
    now[0] = 61
    file.append(b"two\n")
    assert path.read_bytes() == b"zero\none\ntwo\n"
    file.append(b"three\n")
    file.flush()
    assert path.read_bytes().endswith(b"three\n")
    file.append(b"four\n")
    file.close()
    assert path.read_bytes() == b"zero\none\ntwo\nthree\nfour\n"
