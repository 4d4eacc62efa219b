"""Runs the train step of a plan on the devices that are here, with random weights: its time, and its memory's peak."""

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.errors import UserError
from sid_jax.planning.compile import Compiled
from sid_jax.planning.program import Program
from sid_jax.runtime.devices import memory, processes
from sid_jax.runtime.run.progress import following
from sid_jax.sid import Batch, Frozen, TrainState

DROPPED = 2
"""Updates before the measured ones: of the first a device is slower, and memory is still that of how it all began."""
_SCALE = 0.02  # of random weights: about that of a layer with 2,500 inputs


class OutOfMemory(UserError):
    """The program does not fit the devices that are here; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What was measured. Of several processes the largest figure of each kind.

    each: seconds of each update.
    peak: bytes of one device, at the update's peak; None: not known here.
    peak_by: who counted them.
    device: the kind of device, as it calls itself.
    processes: how many there are.
    """

    each: tuple[float, ...]
    peak: int | None
    peak_by: str
    device: str
    processes: int

    @property
    def seconds(self) -> float:
        """Of one update: the median."""
        return statistics.median(self.each)


def run_measured(program: Program, compiled: Compiled, updates: int) -> Run:
    """Runs the program on its devices. All processes of these devices call this together.

    Args:
      program: what was compiled, for devices that are here.
      compiled: with an executable.
      updates: how many are timed.

    Raises:
      OutOfMemory: the devices have too little of it.
    """
    step = compiled.executable
    assert step is not None, "a program that is too large to be compiled is not run"
    try:
        state, frozen, batch = random_arguments(program.arguments)

        def update() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(step(state, frozen, batch))

        turns = following(range(DROPPED + updates), DROPPED + updates, "running the step", unit="updates")
        for _ in itertools.islice(turns, DROPPED):
            update()
        each = tuple(_seconds_of(update) for _ in turns)
        peak, peak_by = memory.device_peak(), "the device"
        if peak is None:
            # Devices in the memory of the host. The arguments were there before; the update adds the rest.
            peak_by = "the process"
            _, growth = memory.with_growth(update)
            if growth is not None:
                peak = (_local_bytes((state, frozen, batch)) + growth) // jax.local_device_count()
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(
            f"out of memory: the compiled program needs {compiled.memory.peak / 1e9:.2f} GB a chip, and "
            f"{_of_devices()}; take a smaller batch, more accumulation, remat=full or a larger mesh.fsdp"
        ) from error
    each = tuple(processes.largest(seconds) for seconds in each)
    peak = None if peak is None else int(processes.largest(peak))
    return Run(each, peak, peak_by, jax.local_devices()[0].device_kind, jax.process_count())


def random_arguments(abstract: tuple[TrainState, Frozen, Batch]) -> tuple[TrainState, Frozen, Batch]:
    """Arrays for the arguments of a train step: small normal numbers, zeros for whole numbers and Adam's states.

    Each array repeats the same draws, and is made shard by shard. How long a network takes does not depend on it.
    """
    draws = (_SCALE * np.random.default_rng(0).standard_normal(2**20)).astype(np.float32)

    def by_shards(array: Any, values: Callable[[list[int]], np.ndarray]) -> jax.Array:
        def of_shard(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # JAX's signature allows None, which it has for no sharding of ours
            shape = [len(range(*part.indices(size))) for part, size in zip(index, array.shape, strict=True)]
            return values(shape).astype(array.dtype, copy=False)

        return jax.make_array_from_callback(array.shape, array.sharding, of_shard)

    def zeros(array: Any) -> jax.Array:
        return by_shards(array, lambda shape: np.zeros(shape, array.dtype))

    def filled(array: Any) -> jax.Array:
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return zeros(array)
        return by_shards(array, lambda shape: np.resize(draws, shape))

    # Each array once: more than the arguments of an update is at no moment on a device.
    state, frozen, batch = abstract
    made = TrainState(
        step=zeros(state.step),
        generator=jax.tree.map(filled, state.generator),
        generator_optimizer=jax.tree.map(zeros, state.generator_optimizer),
        fake=jax.tree.map(filled, state.fake),
        fake_optimizer=jax.tree.map(zeros, state.fake_optimizer),
        ema=jax.tree.map(filled, state.ema),
    )
    return made, jax.tree.map(filled, frozen), jax.tree.map(filled, batch)


def _seconds_of(update: Any) -> float:
    began = time.perf_counter()
    update()
    return time.perf_counter() - began


def _local_bytes(arrays: Any) -> int:
    """Of the shards on this process' devices."""
    shards = (shard for array in jax.tree.leaves(arrays) for shard in array.addressable_shards)
    return sum(math.prod(shard.data.shape) * shard.data.dtype.itemsize for shard in shards)


def _of_devices() -> str:
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return f"{device.device_kind} has {limit / 1e9:.2f} GB for JAX" if limit else f"{device.device_kind} has less"
