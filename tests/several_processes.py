"""Starts a program as several processes on this machine that find each other."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Started(NamedTuple):
    """A process, and the file of what it prints."""

    running: subprocess.Popen
    output: Path

    def ended(self, timeout=300):
        """Its exit code."""
        return self.running.wait(timeout)

    def said(self):
        """What it has printed."""
        return self.output.read_text()


@contextlib.contextmanager
def started(program, arguments, folder, count=2, environment=()):
    """A context with the processes of a program, which are killed when it ends.

    Args:
      program: its text. Beside the arguments it is given the flags that `processes.join` reads, if it is several.
      arguments: of all of them.
      folder: of the files of what they print.
      count: of processes.
      environment: variables of each process beside those of this one.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    every = os.environ | {"JAX_PLATFORMS": "cpu"} | dict(environment)
    found = []
    try:
        for number in range(count):
            flags = f"--coordinator={coordinator}", f"--num-processes={count}", f"--process-id={number}"
            command = [sys.executable, "-c", program, *map(str, arguments), *(flags if count > 1 else ())]
            output = folder / f"{number}.out"
            with output.open("w") as file:
                running = subprocess.Popen(command, env=every, stdout=file, stderr=subprocess.STDOUT)
            found.append(Started(running, output))
        yield found
    finally:
        for each in found:
            each.running.kill()
            each.running.wait()
