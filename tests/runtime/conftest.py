import os
import subprocess
import sys

import pytest


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
