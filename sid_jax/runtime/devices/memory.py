"""How much memory this process has in use, of its host and of its devices; and what something takes at its peak."""

import ctypes
import gc
import os
import re
import resource
import sys
from collections.abc import Callable
from typing import TypeVar

import jax

_GB = 1e9

_T = TypeVar("_T")


def memory_in_use() -> dict[str, float]:
    """`host_memory_gb`; and `device_memory_gb` and `device_memory_peak_gb` of this host's fullest device. In GB.

    The last two are missing where the devices do not say how full they are.
    """
    found = {"host_memory_gb": round(_host_bytes() / _GB, 3)}
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    for name, key in (("device_memory_gb", "bytes_in_use"), ("device_memory_peak_gb", "peak_bytes_in_use")):
        values = [stat[key] for stat in stats if key in stat]
        if values:
            found[name] = round(max(values) / _GB, 3)
    return found


def _host_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux, where only the peak is known: in kB, on macOS in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_peak() -> int | None:
    """The most bytes that this host's fullest device has ever had in use; None: its devices do not say."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat), default=None)


def with_growth(run: Callable[[], _T]) -> tuple[_T, int | None]:
    """What `run` returns, and by how many bytes this process' resident memory grew at most in it.

    What was there before does not count, whatever it is. Memory that is free, but that malloc keeps for later, goes
    back to the system first: else `run` could use it again without growth. The peak is the kernel's own (VmHWM), set
    back at the start, so that short ones are in it too.

    Returns:
      the result, and the growth; None where there is no such peak (not Linux), or it can't be set back.
    """
    gc.collect()
    _return_free_memory()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _status("VmRSS")
    except OSError:
        return run(), None
    result = run()
    return result, max(_status("VmHWM") - before, 0)


def _return_free_memory() -> None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # a C library other than glibc, which keeps less
        return
    trim(0)


def _status(name: str) -> int:
    """Bytes, by the kernel's name of them."""
    with open("/proc/self/status") as file:
        found = re.search(rf"^{name}:\s*(\d+) kB$", file.read(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {name}")
    return 1024 * int(found[1])
