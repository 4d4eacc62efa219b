"""Two processes that work together: told to end they end together, and the one that is left alone ends too."""

import signal
import time

import pytest
from several_processes import started

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
    parser = argparse.ArgumentParser()
    processes.add_arguments(parser)
    processes.join(parser.parse_args(argv))
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
    """Both processes, which have begun."""
    with started(PROGRAM, (), tmp_path) as both:
        while not all("update 3" in each.said() for each in both):
            assert all(each.running.poll() is None for each in both), [each.said() for each in both]
            time.sleep(0.05)
        yield both


@pytest.mark.parametrize("told", [0, 1])
def test_told_to_end_they_end_after_the_same_update(two_processes, told):
    two_processes[told].running.send_signal(signal.SIGTERM)
    assert [each.ended(60) for each in two_processes] == [EXIT_CODE, EXIT_CODE]
    saved = [[line for line in each.said().splitlines() if line.startswith("saved")] for each in two_processes]
    assert saved[0] == saved[1] and len(saved[0]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_is_left_alone_ends_and_says_why(two_processes, lost):
    two_processes[lost].running.kill()
    code, said = two_processes[1 - lost].ended(60), two_processes[1 - lost].said()
    # JAX ends the process itself where it is faster than the transfer that fails.
    assert (code == EXIT_CODE and "another process of this run has ended" in said) or (
        code not in (0, EXIT_CODE) and ("another task died" in said or "heartbeat" in said)
    )
