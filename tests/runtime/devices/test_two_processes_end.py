"""Two processes that work together: told to end they end together, and the one that is left alone ends too."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sid_jax.runtime.devices.preemption import EXIT_CODE

PROGRAM = """
import argparse, sys, time
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.preemption import Preempted, watching

def main(argv):
    processes.HEARTBEAT_SECONDS = 10
    processes.join(argparse.Namespace(coordinator=argv[0], num_processes=2, process_id=int(argv[1])))
    mesh = jax.make_mesh((2,), ("data",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    ones = jax.make_array_from_callback((2,), split, lambda index: np.ones(1, np.float32))
    total = jax.jit(lambda x: x.sum(), out_shardings=whole)
    with processes.detecting_lost_processes(), watching() as preemption:
        for step in range(1, 10**6):
            assert float(total(ones)) == 2
            print("update", step, flush=True)
            if preemption.reached(step):
                raise Preempted(f"saved update {step}")
            time.sleep(0.05)

sys.exit(command_line.run(main, sys.argv[1:]))
"""


@pytest.fixture
def two_processes(tmp_path):
    """Both processes, which have begun, and the files of what they print."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    outputs = [tmp_path / f"{i}.out" for i in range(2)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, coordinator, str(i)],
            env=environment, stdout=output.open("w"), stderr=subprocess.STDOUT,
        )
        for i, output in enumerate(outputs)
    ]  # fmt: skip
    while not all("update 3" in output.read_text() for output in outputs):
        assert all(process.poll() is None for process in running), [output.read_text() for output in outputs]
        time.sleep(0.05)
    yield running, outputs
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("told", [0, 1])
def test_told_to_end_they_end_after_the_same_update(two_processes, told):
    running, outputs = two_processes
    running[told].send_signal(signal.SIGTERM)
    assert [process.wait(timeout=60) for process in running] == [EXIT_CODE, EXIT_CODE]
    saved = [[line for line in output.read_text().splitlines() if line.startswith("saved")] for output in outputs]
    assert saved[0] == saved[1] and len(saved[0]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_is_left_alone_ends_and_says_why(two_processes, lost):
    running, outputs = two_processes
    running[lost].kill()
    code = running[1 - lost].wait(timeout=60)
    said = outputs[1 - lost].read_text()
    # JAX ends the process itself where it is faster than the transfer that fails.
    assert (code == EXIT_CODE and "another process of this run has ended" in said) or (
        code not in (0, EXIT_CODE) and ("another task died" in said or "heartbeat" in said)
    )
