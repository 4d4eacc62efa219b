"""The forms of convolutions and pools for CPUs against XLA's own."""

import jax
import numpy as np
import pytest
from flax import nnx

from sid_jax.models.layers import cpu_convolution

CASES = {
    "product": ((2, 5, 4, 8), (1, 1, 8, 3), 1, (0, 0)),
    "with padding": ((1, 34, 32, 4), (3, 3, 4, 6), 1, (1, 1)),
    "without padding": ((2, 25, 26, 4), (3, 3, 4, 6), 1, (0, 0)),
    "row": ((2, 5, 9, 4), (1, 7, 4, 6), 1, (0, 3)),
    "column": ((2, 9, 5, 4), (7, 1, 4, 6), 1, (3, 0)),
    "few pixels": ((2, 4, 5, 4), (3, 3, 4, 6), 1, (1, 1)),
    "few channels": ((2, 24, 24, 4), (5, 5, 4, 6), 1, (2, 2)),
    "strides": ((2, 35, 33, 4), (3, 3, 4, 6), 2, (0, 0)),
    "strides, 1x1": ((2, 35, 33, 4), (1, 1, 4, 6), 2, (0, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_convolutions(case):
    shape, kernel_shape, strides, padding = CASES[case]
    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32)
    kernel = (random.normal(size=kernel_shape) / np.sqrt(np.prod(kernel_shape[:3]))).astype(np.float32)
    ends = [(each, each) for each in padding]
    numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    expected = jax.lax.conv_general_dilated(x, kernel, (strides, strides), ends, **numbers)
    found = cpu_convolution.convolution(x, kernel, (strides, strides), ends, **numbers)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 7, 8, 3), (1, 3, 4, 2)])
def test_pools(shape):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(cpu_convolution.max_pool(x, 2, 0), nnx.max_pool(x, (3, 3), (2, 2)))
    around = ((1, 1), (1, 1))
    np.testing.assert_array_equal(cpu_convolution.max_pool(x, 1, 1), nnx.max_pool(x, (3, 3), (1, 1), around))


@pytest.mark.parametrize("shape", [(2, 7, 8, 3), (1, 2, 1, 2)])
def test_averages_count_no_padding(shape):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    around = ((1, 1), (1, 1))
    expected = nnx.avg_pool(x, (3, 3), (1, 1), around, count_include_pad=False)
    np.testing.assert_allclose(cpu_convolution.average_pool(x), expected, rtol=0, atol=1e-6)
