"""JAX's own settings, which anybody's environment can change: those that a command fixes; and its errors at the start.

They are `JAX_...` variables of the environment, such as JAX_ENABLE_X64. A flag of XLA's makes CPUs faster.
"""

import contextlib
import os
from collections.abc import Iterator

import jax

_FIXED = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_softmax_custom_jvp": False,
}
"""Those that say what is drawn and in which types is computed, with JAX's defaults."""

_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type"


def quicken_cpu() -> None:
    """Leaves convolutions on CPUs to XLA's own code, where XLA_FLAGS says nothing of it; before JAX starts its devices.

    A step with small networks takes 1.2 to 1.3 times as long with those of YNNPACK (docs/cpu.md). XLA ends a process
    whose flags it does not know, so that this one is for the versions that it was tried with.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if jax.lib.__version__.startswith("0.10.") and _CONVOLUTIONS not in given:
        own = f"{_CONVOLUTIONS}=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
        os.environ["XLA_FLAGS"] = f"{given} {own}".strip()


def fix() -> None:
    """Gives the settings that change what a seed draws, or the types of numbers, the values they have by default."""
    for name, value in _FIXED.items():
        if getattr(jax.config, name) != value:
            jax.config.update(name, value)


@contextlib.contextmanager
def fixed() -> Iterator[None]:
    """A context, or decorator, in which they have these values; after it they are what they were."""
    before = {name: getattr(jax.config, name) for name in _FIXED}
    fix()
    try:
        yield
    finally:
        for name, value in before.items():
            if getattr(jax.config, name) != value:
                jax.config.update(name, value)


def problem_of_start() -> str | None:
    """What to tell the user if JAX can't start the devices that it is to use, in one line; None: it can, or has."""
    try:
        jax.devices()
    except Exception as error:  # of several types, as it happens deep in JAX: RuntimeError, AssertionError
        reason = " ".join(str(error).split()) or "the platform's plugin is not installed, or finds no device"
        asked = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME")
        platforms = f", as the environment's JAX_PLATFORMS={asked} asks" if asked else ""
        return f"JAX can't start its devices{platforms}: {reason}"
    return None
