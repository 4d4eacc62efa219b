"""Conversion of state dicts: exact both ways, and one error that lists all that does not fit."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.formats.state_dict import Stored, from_params, layout, to_params


class Attention(nnx.Module):
    def __init__(self, rngs):
        self.group_norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.to_q = nnx.Linear(4, 4, rngs=rngs)
        self.to_out = nnx.List([nnx.Linear(4, 4, rngs=rngs)])


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.embeddings = nnx.Embed(7, 4, rngs=rngs)
        self.final_layer_norm = nnx.LayerNorm(4, rngs=rngs)


class Network(nnx.Module):
    """One layer of every type, and the places where published files have names of their own."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (5, 1), rngs=rngs)
        self.linear = nnx.Linear(2, 5, use_bias=False, rngs=rngs)
        self.attentions = nnx.List([Attention(rngs)])
        self.text_model = Encoder(rngs)


EXPECTED = {
    "conv.weight": (3, 2, 5, 1),
    "conv.bias": (3,),
    "linear.weight": (5, 2),
    "attentions.0.group_norm.weight": (4,),
    "attentions.0.group_norm.bias": (4,),
    "attentions.0.to_q.weight": (4, 4),
    "attentions.0.to_q.bias": (4,),
    "attentions.0.to_out.0.weight": (4, 4),
    "attentions.0.to_out.0.bias": (4,),
    "text_model.embeddings.weight": (7, 4),
    "text_model.final_layer_norm.weight": (4,),
    "text_model.final_layer_norm.bias": (4,),
}


@pytest.fixture
def network():
    return nnx.eval_shape(lambda: Network(nnx.Rngs(0)))


def random_tensors(dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in EXPECTED.items()}


def read(network, tensors, **options):
    found = {name: Stored(array.shape, str(array.dtype)) for name, array in tensors.items()}
    return to_params(network, found, tensors.items(), where="x.safetensors", **options)


def test_layout_is_the_state_dict(network):
    assert {name: slot.shape for name, slot in layout(network).items()} == EXPECTED


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trip_is_exact(network, dtype):
    tensors = random_tensors(dtype)
    params = read(network, tensors)
    back = dict(from_params(network, params))
    assert set(back) == set(EXPECTED)
    for name, array in back.items():
        assert array.dtype == dtype
        assert array.tobytes() == np.ascontiguousarray(tensors[name]).tobytes()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_float32_holds_the_values_of_half_precision(network, dtype):
    tensors = random_tensors(dtype)
    for name, array in from_params(network, read(network, tensors, dtype=jnp.float32)):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensors[name].astype(np.float32))


def test_axes_are_those_of_the_layers(network):
    tensors = random_tensors()
    params = nnx.to_pure_dict(read(network, tensors))
    np.testing.assert_array_equal(params["conv"]["kernel"], tensors["conv.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["linear"]["kernel"], tensors["linear.weight"].T)
    np.testing.assert_array_equal(
        params["text_model"]["embeddings"]["embedding"], tensors["text_model.embeddings.weight"]
    )


class Tower(nnx.Module):
    """A parameter that no layer holds, as CLIP's class embedding."""

    def __init__(self, rngs):
        self.class_embedding = nnx.Param(jnp.zeros((4, 2, 3)))
        self.norm = nnx.LayerNorm(2, rngs=rngs)


def test_a_bare_parameter_is_in_the_file_as_it_is_here():
    tower = nnx.eval_shape(lambda: Tower(nnx.Rngs(0)))
    shapes = {"class_embedding": (4, 2, 3), "norm.weight": (2,), "norm.bias": (2,)}
    tensors = {name: np.random.default_rng(0).standard_normal(shape, np.float32) for name, shape in shapes.items()}
    params = read(tower, tensors)
    np.testing.assert_array_equal(nnx.to_pure_dict(params)["class_embedding"], tensors["class_embedding"])
    assert {name: array.tobytes() for name, array in from_params(tower, params)} == {
        name: array.tobytes() for name, array in tensors.items()
    }


def test_parameters_run_the_network(network):
    tensors = random_tensors()
    module = nnx.merge(nnx.split(network)[0], read(network, tensors))
    x = np.ones((1, 2), np.float32)
    np.testing.assert_allclose(module.linear(x), x @ tensors["linear.weight"].T, rtol=1e-6)


def test_old_names_are_read_and_new_ones_written(network):
    tensors = random_tensors()
    old = {
        name.replace("to_q", "query").replace("to_out.0", "proj_attn").removeprefix("text_model."): array
        for name, array in tensors.items()
    }
    old["attentions.0.query.weight"] = old["attentions.0.query.weight"][..., None, None]
    old["embeddings.position_ids"] = np.arange(77)[None]
    back = dict(from_params(network, read(network, old)))
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in tensors.items()}


def test_place_gets_each_array_once_and_says_where_it_goes(network):
    seen = {}

    def place(path, array):
        assert isinstance(array, np.ndarray)
        seen[path] = array.shape
        return jax.device_put(array, jax.devices()[0])

    params = read(network, random_tensors(), place=place, dtype=jnp.bfloat16)
    assert seen == {path: leaf.shape for path, leaf in nnx.to_flat_state(params)}
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))


def test_all_that_does_not_fit_is_in_one_line(network):
    tensors = random_tensors()
    del tensors["conv.bias"]
    tensors["linear.weight"] = tensors["linear.weight"].T
    tensors["lora.up\n"] = np.zeros((1, 2), np.float32)
    tensors["attentions.0.to_q.bias"] = np.zeros(4, np.int64)
    with pytest.raises(UserError) as error:
        read(network, tensors)
    message = str(error.value)
    assert message.startswith("x.safetensors does not fit")
    assert "\n" not in message
    for part in (
        "conv.bias [3] is missing",
        "linear.weight is [2, 5], expected [5, 2]",
        r"'lora.up\n' [1, 2] is not expected",
        "attentions.0.to_q.bias is of type int64",
    ):
        assert part in message


def test_the_same_parameter_twice_is_an_error(network):
    tensors = random_tensors()
    tensors["attentions.0.query.bias"] = np.zeros(4, np.float32)
    with pytest.raises(UserError, match=r"attentions\.0\.query\.bias \[4\] is not expected"):
        read(network, tensors)


def test_long_lists_are_shortened(network):
    with pytest.raises(UserError, match=r"; and 4 more$"):
        read(network, {})


def test_nothing_is_asked_for_before_all_fits(network):
    def tensors():
        pytest.fail("a tensor was read")
        yield

    with pytest.raises(UserError):
        to_params(network, {"conv.weight": Stored((10**9,) * 4, "float32")}, tensors(), where="x")


def test_a_layer_without_a_rule_is_a_defect():
    with pytest.raises(TypeError, match="no rule"):
        layout(nnx.eval_shape(lambda: nnx.ConvTranspose(2, 3, (3, 3), rngs=nnx.Rngs(0))))


@pytest.mark.parametrize(("dtype", "value"), [(jnp.float16, 70_000), (jnp.float16, -1e38), (jnp.bfloat16, 3.4e38)])
def test_values_that_are_too_large_for_a_type_are_named(network, dtype, value):
    tensors = random_tensors()
    read(network, tensors, dtype=dtype)
    tensors["conv.weight"][-1, 0, 2, 0] = value
    with pytest.raises(UserError, match=r"^x\.safetensors: conv\.weight has values that are too large for b?float16"):
        read(network, tensors, dtype=dtype)
    read(network, tensors, dtype=jnp.float32)
