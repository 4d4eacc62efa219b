"""How much memory this process has in use, of its host and of its devices."""

import os
import resource
import sys

import jax

_GB = 1e9


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
