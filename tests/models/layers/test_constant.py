"""Leaves that are neither trained nor averaged, apart from parameters in every transformation that a step makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sid_jax.models.layers.constant import Constant, expected_bytes, known_constant

FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


class Layer(nnx.Module):
    """A linear layer between two constants: one that the configuration determines, and one that only a file knows."""

    def __init__(self, rngs, scale=1.0):
        self.resample_filter = known_constant(scale * FILTER)
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.freqs = Constant(jax.random.normal(rngs.params(), (4,)))

    def __call__(self, x):
        return self.linear(x @ self.resample_filter[...]) * self.freqs[...]


def paths(state):
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def test_constants_are_told_from_parameters():
    _, params, constants = nnx.split(Layer(nnx.Rngs(0)), nnx.Param, Constant)
    assert paths(params) == {"linear.kernel", "linear.bias"}
    assert paths(constants) == {"resample_filter", "freqs"}
    assert not issubclass(Constant, nnx.Param)


def test_what_a_value_must_be_is_said():
    layer = Layer(nnx.Rngs(0))
    assert layer.freqs.expected is None
    assert layer.resample_filter.expected == expected_bytes(np.asarray(layer.resample_filter[...]))
    np.testing.assert_array_equal(np.frombuffer(layer.resample_filter.expected, "<f4").reshape(4, 4), FILTER)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f4"])
def test_expected_bytes_are_little_endian_float32_in_c_order(dtype):
    value = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    assert expected_bytes(value) == np.arange(1, 7, dtype="<f4").tobytes()
    assert expected_bytes(np.asfortranarray(value)) == expected_bytes(value)


def test_abstract_modules_have_constants():
    abstract = nnx.eval_shape(lambda: Layer(nnx.Rngs(0)))
    graph, params, constants = nnx.split(abstract, nnx.Param, Constant)
    leaves = jax.tree.leaves((params, constants))
    assert len(leaves) == 4 and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert abstract.resample_filter.expected == expected_bytes(FILTER)

    _, real_params, real_constants = nnx.split(Layer(nnx.Rngs(0)), nnx.Param, Constant)
    assert jax.tree.structure((params, constants)) == jax.tree.structure((real_params, real_constants))
    merged = nnx.merge(graph, real_params, real_constants)
    assert isinstance(merged.freqs, Constant) and merged.resample_filter.expected == expected_bytes(FILTER)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(merged(x), Layer(nnx.Rngs(0))(x))


def test_merged_modules_run_in_jit_and_only_parameters_have_gradients():
    layer = Layer(nnx.Rngs(0))
    graph, params, constants = nnx.split(layer, nnx.Param, Constant)
    x = np.ones((2, 4), np.float32)
    compiled = jax.jit(lambda params, constants: nnx.merge(graph, params, constants)(x))
    np.testing.assert_allclose(compiled(params, constants), layer(x), rtol=1e-6)

    gradients = jax.jit(jax.grad(lambda params: jnp.sum(nnx.merge(graph, params, constants)(x) ** 2)))(params)
    assert paths(gradients) == {"linear.kernel", "linear.bias"}
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def test_graphs_of_equal_modules_are_equal():
    graphs = [nnx.split(layer, nnx.Param, Constant)[0] for layer in (Layer(nnx.Rngs(0)), Layer(nnx.Rngs(1)))]
    assert graphs[0] == graphs[1] and hash(graphs[0]) == hash(graphs[1])
    abstract = nnx.split(nnx.eval_shape(lambda: Layer(nnx.Rngs(0))))[0]
    assert abstract == graphs[0]
    assert nnx.split(Layer(nnx.Rngs(0), scale=2.0))[0] != graphs[0]


def test_a_module_as_an_argument_of_jit_is_compiled_once():
    traced = []

    @jax.jit
    def run(state, x):
        traced.append(None)
        return nnx.merge(graph, state)(x)

    graph = nnx.split(Layer(nnx.Rngs(0)))[0]
    for seed in (0, 1):
        run(nnx.split(Layer(nnx.Rngs(seed)))[1], np.ones((2, 4), np.float32))
    assert len(traced) == 1
