"""Products with a layer's matrix on CPUs against XLA's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sid_jax.models import Execution
from sid_jax.models.layers.product import flat, product_of
from sid_jax.models.layers.resnet import conv


def linear(platform):
    return nnx.Linear(5, 7, dot_general=product_of(platform and Execution(platform=platform)), rngs=nnx.Rngs(0))


def pointwise(platform):
    return conv(5, 7, 1, execution=platform and Execution(platform=platform), rngs=nnx.Rngs(0))


def gradients(layer, x, weights):
    graph, params = nnx.split(layer)
    out, pull = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
    return jax.tree.leaves((out, pull(weights)))


@pytest.mark.parametrize("of", [linear, pointwise])
def test_outputs_and_gradients_are_those_of_the_product(of):
    rng = np.random.default_rng(0)
    x, weights = (jnp.asarray(rng.standard_normal((2, 3, 4, size)), jnp.float32) for size in (5, 7))
    ours, expected = (gradients(of(platform), x, weights) for platform in ("cpu", None))
    for one, other in zip(ours, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(other).max())


def test_only_cpus_have_another_product():
    assert product_of(Execution(platform="cpu")) is flat
    for execution in (None, Execution(platform="gpu"), Execution(platform="tpu")):
        assert product_of(execution) is jax.lax.dot_general


@pytest.mark.parametrize("of", [linear, pointwise])
def test_the_gradient_of_the_kernel_is_of_matrices_as_they_lie(of):
    def transposed(platform):
        x, weights = jnp.ones((2, 3, 4, 5)), jnp.ones((2, 3, 4, 7))
        program = jax.jit(lambda x, weights: gradients(of(platform), x + 1, weights * x[..., :1]))
        return re.findall(r"= f32\[\d+,24\]", program.lower(x, weights).compile().as_text())  # 24 rows, as columns

    assert transposed(None) and not transposed("cpu")
