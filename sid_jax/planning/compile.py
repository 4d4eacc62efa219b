"""Compiles a program for a target and measures the result."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from sid_jax.planning import hlo
from sid_jax.planning.cost import Cost, cost_of
from sid_jax.planning.targets import Target

Options = Mapping[str, Any]

QUICK: Mapping[str, Options] = {
    "tpu": {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0},
    "gpu": {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_gpu_disable_gpuasm_optimizations": True,
        # Both passes look at the whole program again and again: the first for each fusion, which is most of the time
        # that a step of SDXL takes to compile; the second, where memory is short, for each array that it would compute
        # twice.
        "xla_disable_hlo_passes": "multi_output_fusion,rematerialization",
    },
    "cpu": {},
}
"""XLA options by platform: several times faster compilation, for a program that is somewhat slower and larger."""
NEEDED: Mapping[str, Options] = {
    # Triton's matrix products are tuned on the GPU itself. Some sizes can't be compiled untuned, so cuBLAS has to do.
    "gpu": {"xla_gpu_enable_triton_gemm": False},
}

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"


@dataclass(frozen=True)
class Memory:
    """Bytes of one chip's main memory.

    Attributes:
      arguments: state, frozen networks and batch.
      outputs: the new state and the metrics.
      aliased: those of the outputs that take the place of arguments.
      temporaries: everything in between, at the moment of its greatest size; None if the compiler only said that the
        program is too large.
      peak: all of it together.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int | None
    peak: int


@dataclass(frozen=True)
class Compiled:
    """What a compiler made of a program.

    Attributes:
      memory: of one chip.
      cost: of one run on one chip; None if the program is too large to be compiled.
      once: the same with each loop's body counted once; None where `cost` is.
      xla_seconds: the compiler's own estimate of a run (TPU), which counts each loop's body once and leaves kernels
        out; None if it has none.
      xla_bytes: the compiler's own count of the bytes to and from the main memory, in the same way.
      seconds: that compiling took.
      text: the optimised HLO, or the error that says that the program is too large.
      executable: runs it, where the target is here.
    """

    memory: Memory
    cost: Cost | None
    once: Cost | None
    xla_seconds: float | None
    xla_bytes: float | None
    seconds: float
    text: str
    executable: jax.stages.Compiled | None = None

    @property
    def run_seconds(self) -> float | None:
        """The time of one run; None if the program is too large to be compiled.

        It is the compiler's estimate, with each loop counted as often as it runs, or the roofline where the compiler
        has no estimate; in both cases with the time of kernels, and on a GPU with that of all launches.
        """
        if self.cost is None:
            return None
        seconds = self.cost.seconds
        if self.xla_seconds is not None and self.once is not None:
            seconds *= self.xla_seconds / self.once.seconds
        return seconds + self.cost.kernel_seconds + self.cost.launch_seconds


def compile_for(
    target: Target, lowered: jax.stages.Lowered, *, quick: bool = True, as_trained: bool = False
) -> Compiled:
    """Compiles a program; one that is too large for the target is a result and not an error.

    Args:
      target: what it is compiled for.
      lowered: the program, lowered for the target's devices.
      quick: with the options `QUICK`.
      as_trained: with no options at all, as `train` compiles; the target must be here.

    Raises:
      RuntimeError: the compiler fails for another reason, or reports no memory or no program.
    """
    began = time.perf_counter()
    options = {**NEEDED.get(target.platform, {}), **(QUICK[target.platform] if quick else {})}
    if as_trained:
        options = {}
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        peak = overflow(str(error))
        if peak is None:
            raise
        return Compiled(Memory(0, 0, 0, None, peak), None, None, None, None, time.perf_counter() - began, str(error))
    seconds = time.perf_counter() - began
    stats, text = compiled.memory_analysis(), compiled.as_text()
    if stats is None or text is None:
        raise RuntimeError(f"the compiler for {target.name} reports no memory or no program")
    memory = Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        peak=stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes,
    )
    module = hlo.parse(text)
    analysis = (compiled.cost_analysis() or {}) if target.platform == "tpu" else {}
    return Compiled(
        memory=memory,
        cost=cost_of(module, target.chip),
        once=cost_of(module, target.chip, unrolled=False),
        xla_seconds=analysis.get("optimal_seconds"),
        xla_bytes=analysis.get("bytes accessed"),
        seconds=seconds,
        text=text,
        executable=compiled,
    )


def overflow(message: str) -> int | None:
    """The bytes that a program would need, from libtpu's error that it does not fit; None for any other error.

    Two forms are read: "Ran out of memory in memory space hbm. Used 21.93G of 15.75G hbm.", and, where a program is far
    too large, "the total memory required for HLO temporaries (166.17G) exceeds available HBM (15.75G)". The second
    leaves the program's arguments out.

    Args:
      message: the compiler's.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    used = re.search(rf"Used {_SIZE} of \S+ hbm|required for HLO temporaries \({_SIZE}\)", message)
    if used is None:
        return None
    number, unit = (group for group in used.groups() if group is not None)
    return int(float(number) * _UNITS[unit])
