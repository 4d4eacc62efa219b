import argparse

import jax
import pytest

from sid_jax.errors import UserError
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.preemption import EXIT_CODE


@pytest.fixture
def join(monkeypatch):
    """Calls `join` with flags, and returns how JAX was asked to find the other processes; None if it was not."""
    asked = []

    def initialize(*args, heartbeat_timeout_seconds, **options):
        assert heartbeat_timeout_seconds == processes.HEARTBEAT_SECONDS
        asked.append((*args, options))

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)

    def call(*flags):
        asked.clear()
        parser = command_line.Parser("test", "")
        processes.add_arguments(parser)
        processes.join(parser.parse_args(flags))
        return asked[0] if asked else None

    return call


def flags(coordinator="host:1234", count=2, index=1):
    return f"--coordinator={coordinator}", f"--num-processes={count}", f"--process-id={index}"


def test_one_process_joins_nothing(join):
    assert join() is None


def test_flags_say_it_all(join):
    assert join(*flags()) == ("host:1234", 2, 1, {"cluster_detection_method": "deactivate"})
    assert join(*flags(coordinator="[::1]:80", count=1, index=0))[:3] == ("[::1]:80", 1, 0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (flags()[:1], "--num-processes and --process-id missing: give --coordinator, --num-processes, --process-id"),
        (flags()[1:], "--coordinator missing"),
        (flags(coordinator="host"), "--coordinator is 'host': write HOST:PORT"),
        (flags(count=0), "--num-processes is 0: use a positive number"),
        (flags(index=2), "--process-id is 2: of 2 processes it is 0 to 1"),
        (flags(index=-1), "--process-id is -1"),
    ],
)
def test_wrong_flags_are_an_error(join, given, problem):
    with pytest.raises(UserError, match=f"^{problem}"):
        join(*given)


@pytest.mark.parametrize(
    ("tasks_per_node", "gpus", "local"),
    [("1(x4)", "8", list(range(8))), ("1", "2", [0, 1]), ("8(x4)", "8", None), ("1(x4)", "", None), ("1,2", "2", None)],
)
def test_a_step_of_slurm(join, monkeypatch, tasks_per_node, gpus, local):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks_per_node)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", gpus)
    assert join()[-1] == {"cluster_detection_method": "slurm", "local_device_ids": local}


def test_a_step_of_one_task_is_one_process(join, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert join() is None


def test_where_libtpu_is_jax_looks_for_a_pod(join, monkeypatch):
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert join() == ({},)

    def no_pod(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", no_pod)
    assert join() is None


def test_processes_that_do_not_answer_are_an_error_of_one_line(join, monkeypatch):
    def initialize(*args, **options):
        raise RuntimeError("DEADLINE_EXCEEDED:\n waited too long")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=r"by way of host:1234 \(DEADLINE_EXCEEDED: waited too long\)$"):
        join(*flags())


def test_one_process_sees_and_agrees_with_itself(tmp_path):
    assert processes.gather(True).tolist() == [True]
    assert processes.share_a_disk(tmp_path).tolist() == [True]
    assert list(tmp_path.iterdir()) == []
    processes.wait_for_all("test")
    assert processes.is_first()


def test_a_transfer_that_fails_tells_of_the_other_process(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    said = r"^another process .*Gloo AllGather failed: Read error\)$"
    with pytest.raises(processes.ProcessLost, match=said), processes.detecting_lost_processes():
        raise ValueError("UNKNOWN: Gloo AllGather failed:\n Read error")
    with pytest.raises(ValueError, match="ours"), processes.detecting_lost_processes():
        raise ValueError("ours")


def test_a_lost_process_is_a_reason_to_run_again(capsys):
    def fail(argv):
        raise processes.ProcessLost("another process of this run has ended")

    assert command_line.run(fail, []) == EXIT_CODE
    assert capsys.readouterr().err.startswith("another process of this run has ended; run the same command again")


@pytest.mark.parametrize("text", ["x", " ", "-1", "2.5"])
def test_a_number_of_tasks_that_is_none(monkeypatch, text):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", text)
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS is"):
        processes.join(argparse.Namespace(coordinator=None, num_processes=None, process_id=None))
