"""The contract of a network that is distilled, held by every denoiser."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sid_jax.models import DenoiserModule, UNet2DConditionModel, UNetConfig

CONFIG = UNetConfig(
    block_out_channels=(8, 16),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=6,
    norm_num_groups=4,
)


@pytest.fixture(scope="module")
def unet():
    return nnx.split(UNet2DConditionModel(CONFIG, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def inputs():
    x, context = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 8, 8, 4), (2, 3, 6)]))
    return x, jnp.array([20, 625]), {"encoder_hidden_states": context}


def call(unet, inputs, method, **options):
    graph, params = unet
    x, t, cond = inputs
    return jax.jit(lambda params: getattr(nnx.merge(graph, params), method)(x, t, **cond, **options)), params


def test_the_unet_is_a_denoiser(unet):
    module = nnx.merge(*unet)
    assert isinstance(module, DenoiserModule)
    for name in ("__call__", "with_features", "features"):
        parameters = inspect.signature(getattr(module, name)).parameters
        assert list(parameters)[:2] == ["x", "t"]
        assert all(each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in list(parameters.values())[2:])
        assert parameters["dropout_key"].default is None


def test_one_evaluation_has_output_and_features(unet, inputs):
    results = {}
    for method in ("__call__", "features", "with_features"):
        function, params = call(unet, inputs, method)
        results[method] = function(params)
    output, features = results["with_features"]
    assert output.shape == (2, 8, 8, 4) and features.shape == (2, 4, 4, 16)
    np.testing.assert_allclose(output, results["__call__"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(features, results["features"], rtol=1e-5, atol=1e-5)


def test_a_network_without_dropout_ignores_the_key(unet, inputs):
    programs = []
    for key in (None, jax.random.key(7)):
        function, params = call(unet, inputs, "with_features", dropout_key=key)
        programs.append(function.lower(params).as_text())
    assert programs[0] == programs[1]


def test_features_leave_the_decoder_out(unet, inputs):
    flops = {}
    for method in ("__call__", "features"):
        function, params = call(unet, inputs, method)
        flops[method] = function.lower(params).compile().cost_analysis()["flops"]
    assert flops["features"] < 0.5 * flops["__call__"]


def test_logits_are_channel_means_and_not_clipped(unet):
    features = 100 * jax.random.normal(jax.random.key(0), (2, 4, 4, 16), jnp.bfloat16) + 50
    logits = nnx.merge(*unet).logits(features)
    assert logits.shape == (2, 4, 4) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, np.asarray(features, np.float32).mean(-1), rtol=1e-5)
    assert np.abs(logits).max() > 10


def test_a_condition_that_the_network_has_not_is_an_error(unet, inputs):
    x, t, cond = inputs
    with pytest.raises(TypeError, match="class_labels"):
        nnx.merge(*unet)(x, t, **cond, class_labels=t)
