"""Convolutions by Winograd's filtering against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sid_jax.models.layers import winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")
OPTIONS = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT}


def drawn(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("shape", "channels", "stride"),
    [
        pytest.param((2, 6, 4, 64), 80, 1, id="winograd"),
        pytest.param((2, 5, 4, 3), 7, 1, id="shifted"),
        pytest.param((2, 5, 4, 3), 7, 2, id="shifted-with-strides"),
    ],
)
def test_outputs_and_gradients_are_those_of_the_convolution(shape, channels, stride, monkeypatch):
    monkeypatch.setattr(winograd, "FEWEST_PIXELS", 1)
    monkeypatch.setattr(winograd, "FEWEST_PRODUCTS", 1)
    monkeypatch.setattr(winograd, "SMALLEST_SIDE", 1)
    options = {"window_strides": (stride, stride), "padding": ((1, 1), (1, 1)), "dimension_numbers": LAYOUT}
    height, width = -(-shape[1] // stride), -(-shape[2] // stride)
    x, kernel, weights = drawn(shape, (3, 3, shape[3], channels), (shape[0], height, width, channels))

    def step(convolution):
        def loss(x, kernel):
            out = convolution(x, kernel, **options)
            return jnp.sum(weights * out), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)
        return out, *gradients

    for ours, expected in zip(step(winograd.convolution), step(jax.lax.conv_general_dilated), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "channels", "dtype", "used"),
    [
        pytest.param((4, 16, 16, 64), 64, np.float32, True, id="large"),
        pytest.param((4, 16, 17, 64), 64, np.float32, False, id="odd"),
        pytest.param((4, 16, 16, 64), 3, np.float32, False, id="few-channels"),
        pytest.param((3, 8, 8, 64), 64, np.float32, False, id="few-pixels"),
        pytest.param((4, 8, 8, 320), 320, np.float32, False, id="fewer-pixels-than-channels"),
        pytest.param((64, 4, 4, 64), 64, np.float32, False, id="small"),
        pytest.param((4, 16, 16, 64), 64, jnp.bfloat16, False, id="half-precision"),
    ],
)
def test_where_it_is_used(shape, channels, dtype, used):
    arrays = drawn(shape, (3, 3, shape[-1], channels), dtype=dtype)
    program = str(jax.make_jaxpr(lambda x, kernel: winograd.convolution(x, kernel, **OPTIONS))(*arrays))
    assert ("conv_general_dilated" in program) != used
