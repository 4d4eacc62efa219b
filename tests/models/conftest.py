"""PyTorch's networks as ours, through the files that diffusers and transformers write."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from sid_jax.teachers import open_component

# As XLA spends most of its time on optimising code that runs once here.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture
def ours(tmp_path):
    """A function: PyTorch network, options of our constructor -> our network with its weights, compiled.

    Call it, or `method=` of it.
    """
    torch.set_num_threads(1)

    def convert(network: torch.nn.Module, **options):
        network.save_pretrained(tmp_path)
        component = open_component(tmp_path, type(network).__name__, **options).load()

        def call(*args, method="__call__", **kwargs):
            def run(params, args, kwargs):
                return getattr(nnx.merge(component.graphdef, params), method)(*args, **kwargs)

            lowered = jax.jit(run).lower(component.params, args, kwargs)
            return lowered.compile(compiler_options=_QUICK)(component.params, args, kwargs)

        return call

    return convert


@pytest.fixture
def varied():
    """A function: PyTorch network -> the same with noise in all weights, as norms and biases start at 1 and 0."""

    @torch.no_grad()
    def vary(network: torch.nn.Module) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        return network.eval()

    return vary


@pytest.fixture
def close():
    """Asserts that the largest error is at most `tolerance` of the largest value; ours is NHWC where theirs is NCHW."""

    def check(actual: jax.Array, expected: torch.Tensor, tolerance: float = 1e-4):
        expected = expected.detach().numpy()
        expected = np.moveaxis(expected, 1, -1) if expected.ndim == 4 else expected
        actual = np.asarray(actual)
        assert actual.shape == expected.shape
        assert np.isfinite(actual).all()
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        assert error <= tolerance

    return check


@pytest.fixture
def seeded():
    """A function: seed, shape -> the same normal numbers in NCHW for PyTorch, in NHWC for us (other ranks: as is)."""

    def draw(seed: int, *shape: int) -> tuple[torch.Tensor, np.ndarray]:
        array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        return torch.from_numpy(array), np.moveaxis(array, 1, -1) if len(shape) == 4 else array

    return draw
