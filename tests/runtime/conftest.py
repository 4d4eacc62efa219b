import importlib.machinery
import sys
import types
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """A gs:// of which nothing leaves this process."""

    protocol = ("gcs", "gs")
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs://"))


@pytest.fixture
def bucket(monkeypatch):
    """The address of an empty bucket."""
    gcsfs = types.ModuleType("gcsfs")
    gcsfs.__spec__ = importlib.machinery.ModuleSpec("gcsfs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", gcsfs)
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    return "gs://bucket"
