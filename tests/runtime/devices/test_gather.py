"""Networks whose weights are gathered, or held to their layout, compute what they compute without."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.gather import gather_weights

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.gather import gather_weights

mesh = meshes.make_mesh(2, 4)
layers = [nnx.Conv(4, 256, (3, 3), rngs=nnx.Rngs(0)), nnx.Linear(256, 512, rngs=nnx.Rngs(1))]
graph, params = nnx.split(nnx.List(layers))
x = jax.random.normal(jax.random.key(1), (8, 4, 4, 4))

def loss(mesh):
    def function(params, x):
        conv, linear = gather_weights(nnx.merge(graph, params), mesh)
        return jnp.sum(linear(jnp.tanh(conv(x))) ** 2)
    return function

expected = jax.jit(jax.value_and_grad(loss(None)))(params, x)
placed = meshes.place(params, meshes.parameter_shardings(params, mesh))
actual = jax.jit(jax.value_and_grad(loss(mesh)))(placed, meshes.place(x, meshes.batch_sharding(mesh)))
for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)
print([str(leaf.sharding.spec) for leaf in jax.tree.leaves(actual[1])])
"""


def test_values_and_gradients_are_the_same_and_gradients_are_sharded(eight_devices):
    printed = eight_devices(PROGRAM)
    assert printed.count("'fsdp'") == 1  # of the linear layer's kernel; the others are small


def test_one_device_or_none_changes_nothing():
    network = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0))])
    before = network[0].promote_dtype
    mesh = meshes.make_mesh(1, 1, jax.devices()[:1])
    for nothing in (None, mesh):
        assert gather_weights(network, nothing)[0].promote_dtype is before


def test_on_a_gpu_kernels_of_convolutions_and_their_gradients_keep_their_layout():
    gpu = SimpleNamespace(shape={"fsdp": 1}, devices=np.array([SimpleNamespace(platform="cuda")]))
    layers = [nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0)), nnx.Linear(8, 2, rngs=nnx.Rngs(1))]
    graph, params = nnx.split(nnx.List(layers))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 4))

    def step(mesh):
        def loss(params):
            conv, linear = gather_weights(nnx.merge(graph, params), mesh)
            return jnp.sum(linear(jnp.tanh(conv(x))) ** 2)

        return jax.jit(jax.value_and_grad(loss))

    jax.tree.map(np.testing.assert_array_equal, step(gpu)(params), step(None)(params))
    kernel_and_gradient = 2
    assert step(gpu).lower(params).as_text().count("@LayoutConstraint") == kernel_and_gradient
