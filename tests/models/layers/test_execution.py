"""What is computed again, and as a loop, is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sid_jax.models import Execution
from sid_jax.models.layers.attention import attend
from sid_jax.models.layers.execution import REMAT, computed_once, materialised, run
from sid_jax.models.layers.transformer import Transformer2DModel, geglu


def transformer(execution):
    options = {"depth": 3, "context_channels": 12, "groups": 4, "linear_projection": True}
    return Transformer2DModel(16, 2, execution=execution, rngs=nnx.Rngs(0), **options)


def value_and_gradients(execution):
    graph, params = nnx.split(transformer(execution))
    x, context = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 4, 4, 16), (2, 5, 12)]))

    def loss(params, x, context):
        return jnp.sum(nnx.merge(graph, params)(x, context) ** 2)

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(params, x, context)


@pytest.fixture(scope="module")
def expected():
    return value_and_gradients(None)


@pytest.mark.parametrize("remat, scan", [("none", True), ("dots", False), ("full", False), ("full", True)])
def test_a_transformer_computes_the_same(remat, scan, expected):
    actual = value_and_gradients(Execution(remat=remat, scan=scan))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("remat", REMAT)
def test_what_is_kept(remat):
    """Of tanh(tanh(x w)), "none" keeps what both derivatives need, "dots" the product, and "full" neither."""
    layer = nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0))

    def function(x):
        return jnp.sum(run(Execution(remat=remat), lambda layer, x: jnp.tanh(jnp.tanh(layer(x))), layer, x))

    products = str(jax.make_jaxpr(jax.grad(function))(jnp.ones((3, 4)))).count("dot_general")
    assert products == {"none": 2, "dots": 2, "full": 3}[remat]


@pytest.mark.parametrize("remat", REMAT)
def test_attention_kernels_do_not_run_again(remat):
    execution = Execution("splash", remat=remat, platform="tpu")
    layer = nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0))

    def function(x):
        return jnp.sum(run(execution, lambda layer, x: attend(x, x, layer(x), execution=execution) ** 2, layer, x))

    program = str(jax.make_jaxpr(jax.grad(function))(jnp.ones((1, 1024, 1, 4))))
    assert program.count("name=splash_mha_fwd") == 1


@pytest.mark.parametrize("remat", REMAT)
def test_blocks_of_logits_are_not_kept(remat):
    execution = Execution(remat=remat, platform="cpu")
    layer = nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0))
    length = 512  # larger than all that is as long as the input

    def function(x):
        return jnp.sum(run(execution, lambda layer, x: attend(x, x, layer(x), execution=execution) ** 2, layer, x))

    kept = jax.eval_shape(lambda x: jax.vjp(function, x)[1], jnp.ones((1, length, 1, 4)))
    assert max(x.size for x in jax.tree.leaves(kept)) == 4 * length


@pytest.mark.parametrize(("platform", "barriers"), [("tpu", 1), ("gpu", 0), (None, 0)])
def test_only_tpus_need_to_keep_the_layout(platform, barriers):
    execution = platform and Execution(platform=platform)
    program = str(jax.make_jaxpr(lambda x: materialised(execution, x) + 1)(1.0))
    assert program.count("optimization_barrier") == barriers


@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_cpus_compute_a_chain_once_for_all_that_read_it(direction):
    def multiplications(each):
        def chain(x, factor):
            for _ in range(5):
                x = each(x * factor)
            return x

        def read(x, matrices):
            return [jnp.sin((x - matrix) @ matrix) for matrix in matrices]

        def forwards(x, matrices):
            return read(chain(x, x), matrices)

        def backwards(x, matrices):
            return jax.vjp(lambda matrices: chain(sum(read(x, matrices)), x), matrices)[1](x)

        program = forwards if direction == "forwards" else backwards
        compiled = jax.jit(program).lower(jnp.ones((8, 8)), 8 * [jnp.ones((8, 8))]).compile()
        return compiled.as_text().count(" multiply(")

    execution = Execution(platform="cpu")
    assert multiplications(lambda x: materialised(execution, x)) < multiplications(lambda x: x) / 2


def test_what_is_computed_once_is_the_same_and_so_is_its_gradient():
    x = jnp.arange(3.0)
    out, pull = jax.vjp(computed_once, x)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(pull(2 * x)[0], 2 * x)


def test_geglu_has_the_derivative_of_its_formula():
    def formula(x):
        value, gate = jnp.split(x, 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)

    x, of_out = 3 * jax.random.normal(jax.random.key(0), (50, 8)), jax.random.normal(jax.random.key(1), (50, 4))
    for ours, theirs in zip(*((f(x), *jax.vjp(f, x)[1](of_out)) for f in (geglu, formula)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="remat: 'all' is not one of none, dots, full"):
        Execution(remat="all")
