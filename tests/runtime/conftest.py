import importlib.machinery
import os
import subprocess
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
    return "gs://bucket"


@pytest.fixture
def eight_devices():
    """Runs a program in a process of its own, with arguments, on 8 simulated devices; returns what it printed."""

    def run(program, *arguments):
        simulated = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, env=os.environ | simulated, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
