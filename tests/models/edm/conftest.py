"""Programs that run once, compiled quickly."""

import jax
import pytest


@pytest.fixture
def compiled():
    """A function: function of arrays, arrays (or their shapes) -> the function, compiled for them."""
    # Without XLA's newer emitters of loops it takes less than half the time.
    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }

    def compile_for(function, *args):
        return jax.jit(function).lower(*args).compile(compiler_options=options)

    return compile_for
