"""Accelerators by name: what they have, and devices that programs can be compiled for without one being here; and the
accelerators that are here.

`tpu:v5e:2x4` is a TPU of generation v5e with a topology of 2 x 4 chips, for which libtpu compiles; `gpu:h100:8` is
eight GPUs in one machine, for which the CUDA plugin of JAX compiles from a description of the device in `gpus/`;
`cpu:4` is the CPU of this machine, simulated four times, to try things out.
"""

import dataclasses
import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jax

from sid_jax.errors import UserError


@dataclass(frozen=True)
class Chip:
    """One accelerator. The numbers are from the vendors' data sheets.

    Attributes:
      memory: bytes of the main memory that a program can have.
      flops: operations of dense matrix products in bfloat16 a second, at the peak.
      bandwidth: bytes a second to and from the main memory.
      float32: operations of products in float32 to its last bits (precision "highest") a second: on a TPU six passes in
        bfloat16, at the peak; on a GPU what its ordinary cores reach, `EXACT_SHARE` of their peak.
      launch: seconds from the launch of a kernel that does nothing to that of the next.
      known: false for any other chip, whose numbers but `memory` are made up.
    """

    memory: float
    flops: float
    bandwidth: float
    float32: float
    launch: float = 0
    known: bool = True


EXACT_SHARE = 0.58
"""Of a GPU's peak in float32, what products reach: CIFAR-10's step on an H200, whose convolutions are cuDNN's."""
LAUNCH = 7e-6
"""Of a GPU's kernel, in seconds: on an H200 three networks took 6.3, 6.6 and 8.2 us more than the roofline for each."""


def _gpu(memory: float, flops: float, bandwidth: float, float32: float) -> Chip:
    """A GPU; `float32` is the data sheet's peak."""
    return Chip(memory, flops, bandwidth, EXACT_SHARE * float32, LAUNCH)


GIB = 2**30
TPUS = {
    # The runtime keeps some of a TPU's memory for itself. These are the sizes that libtpu compiles for.
    "v4": Chip(memory=30.75 * GIB, flops=275e12, bandwidth=1228e9, float32=275e12 / 6),
    "v5e": Chip(memory=15.75 * GIB, flops=197e12, bandwidth=819e9, float32=197e12 / 6),
    "v5p": Chip(memory=95.74 * GIB, flops=459e12, bandwidth=2765e9, float32=459e12 / 6),
    "v6e": Chip(memory=31.25 * GIB, flops=918e12, bandwidth=1640e9, float32=918e12 / 6),
}
GPUS = {
    # 1 GiB of a GPU's memory is left to the CUDA context and the libraries. By default JAX takes 0.75 of the memory, so
    # a program that needs more has to be run with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 or more.
    "h100": ("h100_sxm", _gpu(memory=84_942_979_072 - GIB, flops=989e12, bandwidth=3352e9, float32=67e12)),
    "a100": ("a100_sxm_80", _gpu(memory=85_100_068_864 - GIB, flops=312e12, bandwidth=2039e9, float32=19.5e12)),
    "rtx4090": ("rtx4090", _gpu(memory=25_393_692_672 - GIB, flops=165e12, bandwidth=1008e9, float32=82.6e12)),
}
MOST_CHIPS = 2**16
"""More than the largest pods have. A description of more takes memory, and no compiler knows it."""
CPU = Chip(memory=float("inf"), flops=1e11, bandwidth=1e10, float32=1e11, known=False)
OTHER_GPUS = {
    "H200": _gpu(memory=141e9, flops=989e12, bandwidth=4800e9, float32=67e12),
    "H100 PCIe": _gpu(memory=80e9, flops=756e12, bandwidth=2000e9, float32=51e12),
    "A100-SXM4-40GB": _gpu(memory=40e9, flops=312e12, bandwidth=1555e9, float32=19.5e12),
    "L40S": _gpu(memory=48e9, flops=362e12, bandwidth=864e9, float32=91.6e12),
    "L4": _gpu(memory=24e9, flops=121e12, bandwidth=300e9, float32=30.3e12),
}
"""By a part of the name that a device gives itself. They are measured where they are, and not planned for."""
_KINDS = {
    "tpu": {"v4": "v4", "v5 lite": "v5e", "v5e": "v5e", "v5p": "v5p", "v5": "v5p", "v6 lite": "v6e", "v6e": "v6e"},
    "gpu": {"H100 80GB": "h100", "A100-SXM4-80GB": "a100", "A100 80GB": "a100", "RTX 4090": "rtx4090"},
}
"""Our names of chips, by a part of the name that a device gives itself; the first that fits."""
FORMS = "tpu:v4|v5e|v5p|v6e:TOPOLOGY (such as tpu:v5e:2x4), gpu:h100|a100|rtx4090:COUNT, or cpu:COUNT"


@dataclass(frozen=True)
class Target:
    """What a program is compiled for.

    Attributes:
      name: as the user wrote it.
      platform: "tpu", "gpu" or "cpu".
      count: chips.
      chip: what each of them has.
      open: makes the devices, which can be compiled for and nothing else.
    """

    name: str
    platform: str
    count: int
    chip: Chip
    open: Callable[[], list[jax.Device]]


def parse(name: str) -> Target:
    """The target of that name.

    Args:
      name: in one of `FORMS`.

    Raises:
      UserError: there is no such target. `Target.open` raises it too, where the package of its compiler is missing or
        the topology does not exist.
    """
    target = _parse(name)
    if target is None:
        raise UserError(f"target {name!r} is not known: use {FORMS}")
    if target.count > MOST_CHIPS:
        raise UserError(f"target {name!r} has {target.count} chips: at most {MOST_CHIPS} can be planned for")
    return target


def _parse(name: str) -> Target | None:
    platform, *rest = name.split(":")
    if platform == "tpu" and len(rest) == 2 and rest[0] in TPUS:
        sizes = _numbers(rest[1].split("x"))
        if len(sizes) in (2, 3):
            count = 1
            for size in sizes:
                count *= size
            generation, topology = rest[0], rest[1] + "x1" * (rest[0] in ("v4", "v5p") and len(sizes) == 2)
            return Target(name, "tpu", count, TPUS[generation], lambda: _open_tpu(generation, topology, count))
    if platform == "gpu" and len(rest) == 2 and rest[0] in GPUS and _numbers(rest[1:]):
        description, chip = GPUS[rest[0]]
        return Target(name, "gpu", int(rest[1]), chip, lambda: _open_gpu(description, int(rest[1])))
    if platform == "cpu" and len(rest) == 1 and _numbers(rest):
        return Target(name, "cpu", int(rest[0]), CPU, lambda: _open_cpu(int(rest[0])))
    return None


def _numbers(texts: list[str]) -> list[int]:
    """The positive numbers that the texts stand for; none at all if one text is no such number."""
    good = all(re.fullmatch(r"0*[1-9][0-9]{0,8}", text) for text in texts)
    return [int(text) for text in texts] if good else []


def _open_tpu(generation: str, topology: str, count: int) -> list[jax.Device]:
    if not _installed("libtpu"):
        raise UserError(f'the compiler for TPUs is missing: pip install "jax[tpu]=={jax.__version__}"')
    # Where there is no TPU, libtpu would ask the cloud's metadata service for these, and wait for an answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", {"v5e": "v5litepod"}.get(generation, generation) + f"-{count}")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Nothing is loaded onto a TPU, so several processes may compile for one at a time.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # A machine has four chips or more, where nothing says otherwise.
    one: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {}
    return _topology("tpu", f"{generation}:{topology}", count, **one)


def _open_gpu(description: str, count: int) -> list[jax.Device]:
    if not any(_installed(f"jax_plugins.xla_cuda{version}") for version in (12, 13)):
        raise UserError(f'the compiler for GPUs is missing: pip install "jax[cuda12]=={jax.__version__}"')
    config = (resources.files("sid_jax.planning") / "gpus" / f"{description}.txtpb").read_text()
    shape = f"1x1x{count}"  # slices x hosts x GPUs
    return _topology("cuda", shape, count, topology=shape, target_config=config)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it: of `jax_plugins`, where no plugin at all is installed
        return False


def _topology(platform: str, name: str, count: int, **options: Any) -> list[jax.Device]:
    from jax.experimental import topologies

    try:
        devices = topologies.get_topology_desc(platform=platform, topology_name=name, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"target {name}: {str(error).splitlines()[0][:300]}") from error
    if len(devices) != count:
        raise UserError(f"target {name} has {len(devices)} devices, not {count}: use another topology")
    return devices


def _open_cpu(count: int) -> list[jax.Device]:
    if jax.device_count("cpu") < count:
        raise UserError(f"target cpu:{count}: set XLA_FLAGS=--xla_force_host_platform_device_count={count}")
    return jax.devices("cpu")[:count]


def present(name: str | None = None) -> Target:
    """What JAX has here: the devices of all processes, of its default backend.

    Its memory is what JAX may take of a device's, where the devices say that.

    Args:
      name: the target that has to be here, in one of `FORMS`; None: no matter.

    Raises:
      UserError: something else is here.
    """
    devices = jax.devices()
    here = _present(devices)
    if name is not None:
        asked = parse(name)
        if (asked.platform, asked.count, asked.chip.flops) != (here.platform, here.count, here.chip.flops):
            raise UserError(
                f"--target {name} is not here, where JAX has {here.name}: leave --target out to measure that, or "
                f"--measure to plan for {name}"
            )
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return dataclasses.replace(here, chip=dataclasses.replace(here.chip, memory=limit)) if limit else here


def _present(devices: list[jax.Device]) -> Target:
    platform, kind, count = devices[0].platform, devices[0].device_kind, len(devices)
    ours = next((name for part, name in _KINDS.get(platform, {}).items() if _named(part, kind)), None)
    if platform == "tpu" and ours:
        sizes = [1 + max(places) for places in zip(*(device.coords for device in devices), strict=True)]
        shape = "x".join(map(str, sizes[:2] if ours in ("v5e", "v6e") else sizes))
        return Target(f"tpu:{ours}:{shape}", platform, count, TPUS[ours], lambda: devices)
    if platform == "gpu" and ours:
        return Target(f"gpu:{ours}:{count}", platform, count, GPUS[ours][1], lambda: devices)
    if platform == "cpu":
        return Target(f"cpu:{count}", platform, count, CPU, lambda: devices)
    chip = next((chip for part, chip in OTHER_GPUS.items() if platform == "gpu" and _named(part, kind)), CPU)
    return Target(f"{count} x {kind}", platform, count, chip, lambda: devices)


def _named(part: str, kind: str) -> bool:
    """Whether a device's name has a part that ends where a word does: "L4", which "NVIDIA L40" has not."""
    return f"{part} " in f"{kind} "
