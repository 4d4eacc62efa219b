"""The processes of a run: one on each host of a pod or node of a cluster, all running the same program.

Call `join` before anything asks JAX for its devices. Where there is one process, `join` does nothing.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from sid_jax.errors import UserError

HEARTBEAT_SECONDS = 60
"""A process that is silent for so long is lost. JAX then ends the others, which would wait for it for good."""

_GONE = re.compile(r"gloo|nccl|coordination service|socket closed|connection (reset|closed|refused)", re.IGNORECASE)
"""Found in what JAX says when it can't reach another process."""

_HELP = """\
by hand, the same command in every process; on Cloud TPU pods and in steps of SLURM JAX finds this out by itself"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `join` reads."""
    group = parser.add_argument_group("several processes", _HELP)
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is, with a port that is free there")
    group.add_argument("--num-processes", metavar="N", type=int, help="how many there are")
    group.add_argument("--process-id", metavar="I", type=int, help="which one this is: 0 to N-1")


def join(arguments: argparse.Namespace) -> None:
    """Makes this process one of several, as the flags say, or SLURM, or a Cloud TPU pod.

    Args:
      arguments: with the flags of `add_arguments`.

    Raises:
      UserError: the flags are incomplete or impossible, or the other processes can't be reached.
    """
    flags = {
        "--coordinator": arguments.coordinator,
        "--num-processes": arguments.num_processes,
        "--process-id": arguments.process_id,
    }
    missing = [name for name, value in flags.items() if value is None]
    if not missing:
        _check(arguments.coordinator, arguments.num_processes, arguments.process_id)
        with _reaching(arguments.coordinator):
            jax.distributed.initialize(
                arguments.coordinator,
                arguments.num_processes,
                arguments.process_id,
                cluster_detection_method="deactivate",
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
    elif len(missing) < len(flags):
        raise UserError(f"{' and '.join(missing)} missing: give {', '.join(flags)} together")
    elif _tasks_of_step() > 1:  # in a step: `srun`, not the batch script around it
        with _reaching("the first node of the step"):
            jax.distributed.initialize(
                cluster_detection_method="slurm",
                local_device_ids=_gpus_of_only_task(),
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
    elif importlib.util.find_spec("libtpu"):
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
        except ValueError as error:  # a machine without TPUs, where libtpu only compiles
            if "coordinator_address" not in str(error):
                raise


class ProcessLost(Exception):
    """Another process of the run has ended, and this one can't go on alone; the message is one line."""


@contextlib.contextmanager
def detecting_lost_processes() -> Iterator[None]:
    """A context in which a transfer raises ProcessLost where it fails because the process at its other end has gone.

    A process that is there but silent is detected by JAX, which then says so and ends this process.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or not _GONE.search(str(error)):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ProcessLost(f"another process of this run has ended, and its own output says why ({reason})") from error


def is_first() -> bool:
    """Whether this process writes what a run writes once: logs, pictures, tables."""
    return jax.process_index() == 0


def gather(value: bool) -> np.ndarray:
    """The value that each process gives, bool `[processes]`; all processes call this together."""
    return multihost_utils.process_allgather(np.asarray(value)).reshape(-1)


def largest(value: float) -> float:
    """The largest value of all processes; all of them call this together."""
    if jax.process_count() == 1:
        return value
    return float(np.max(multihost_utils.process_allgather(np.float32(value))))


def from_first(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """The values of the first process, float64, to the bit; all processes call this together, with equal shapes.

    JAX would round float64 to float32, so bits travel.
    """
    own = np.asarray(values, np.float64)
    if jax.process_count() == 1:
        return own
    return np.asarray(multihost_utils.broadcast_one_to_all(own.view(np.uint32))).view(np.float64).reshape(own.shape)


def wait_for_all(where: str) -> None:
    """Returns when every process has called this with the same text."""
    multihost_utils.sync_global_devices(where)


def share_a_disk(folder: epath.Path) -> np.ndarray:
    """Which processes find in an existing folder what the first process writes there, bool `[processes]`.

    All processes call this together.
    """
    drawn = np.uint32(secrets.randbits(32))
    if is_first():
        (folder / f".first.{drawn}").write_bytes(b"")
    # The others get the name of the file only after it was written.
    probe = folder / f".first.{int(multihost_utils.broadcast_one_to_all(drawn))}"
    seeing = gather(probe.exists())
    if is_first():
        probe.unlink()
    return seeing


@contextlib.contextmanager
def _reaching(where: str) -> Iterator[None]:
    """A context in which JAX's error of processes that do not find each other is a UserError with `where`."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the processes of this run can't reach each other by way of {where} ({reason})") from error


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    if not re.fullmatch(r"(.+):(\d{1,5})", coordinator):
        raise UserError(f"--coordinator is {coordinator!r}: write HOST:PORT, such as 10.0.0.1:1234")
    if num_processes < 1:
        raise UserError(f"--num-processes is {num_processes}: use a positive number")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process-id is {process_id}: of {num_processes} processes it is 0 to {num_processes - 1}")


def _tasks_of_step() -> int:
    """Tasks of the step of SLURM that this process is in; 1 outside of one."""
    text = os.environ.get("SLURM_STEP_NUM_TASKS") or "1"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(f"SLURM_STEP_NUM_TASKS is {text!r}, not a number of tasks: unset it, or start with srun")
    return int(text)


def _gpus_of_only_task() -> list[int] | None:
    """All GPUs of this node if it has one task of the step; None if it has several: JAX then gives each task one."""
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    if re.fullmatch(r"1(\(x\d+\))?", tasks) and os.environ.get("SLURM_GPUS_ON_NODE", "").isdigit():
        return list(range(int(os.environ["SLURM_GPUS_ON_NODE"])))
    return None
