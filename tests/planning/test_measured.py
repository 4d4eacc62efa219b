"""A step that runs here: its memory, and the names of what is here."""

from types import SimpleNamespace

import numpy as np
import pytest

from sid_jax.planning import targets
from sid_jax.runtime.devices.memory import with_growth


def test_growth_is_that_of_the_function_alone():
    """Neither what was there, nor what malloc keeps, nor what is gone when the function returns."""
    size = 2**26
    held = np.ones(size, np.uint8)
    freed = [np.ones(2**16, np.uint8) for _ in range(400)]  # small enough for malloc to keep
    del freed

    def function():
        large, small = np.ones(size, np.uint8), [np.ones(2**16, np.uint8) for _ in range(400)]
        return len(large) + len(small)

    result, growth = with_growth(function)
    assert result == size + 400 and len(held) == size
    assert growth == pytest.approx(size + 400 * 2**16, rel=0.1)


def device(platform, kind, **more):
    return SimpleNamespace(platform=platform, device_kind=kind, **more)


@pytest.mark.parametrize(
    ("devices", "name", "flops"),
    [
        ([device("gpu", "NVIDIA H100 80GB HBM3")] * 8, "gpu:h100:8", 989e12),
        ([device("gpu", "NVIDIA GeForce RTX 4090")], "gpu:rtx4090:1", 165e12),
        ([device("gpu", "NVIDIA L4")], "1 x NVIDIA L4", 121e12),
        ([device("gpu", "NVIDIA L40S")], "1 x NVIDIA L40S", 362e12),
        ([device("gpu", "NVIDIA L40")], "1 x NVIDIA L40", None),
        ([device("cpu", "cpu")] * 2, "cpu:2", None),
        ([device("tpu", "TPU v5 lite", coords=(x, y, 0)) for x in range(2) for y in range(4)], "tpu:v5e:2x4", 197e12),
        ([device("tpu", "TPU v5p", coords=(x, 0, z)) for x in range(2) for z in range(2)], "tpu:v5p:2x1x2", 459e12),
        ([device("tpu", "TPU v4", coords=(0, 0, 0))], "tpu:v4:1x1x1", 275e12),
    ],
)
def test_what_is_here_has_the_name_of_a_target(devices, name, flops):
    here = targets._present(devices)
    assert (here.name, here.count, here.open()) == (name, len(devices), devices)
    assert here.chip.flops == flops if flops else not here.chip.known
    if not name.startswith("1 x"):
        assert targets.parse(name).chip == here.chip
