"""EDM's networks as denoisers: the contract, dropout, types, buffers, and initial values."""

import inspect
import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.formats.state_dict import Stored, from_params, layout, to_params
from sid_jax.models import DenoiserModule, Execution
from sid_jax.models.edm import init, layers
from sid_jax.models.layers.constant import Constant
from sid_jax.models.layers.execution import run
from sid_jax.models.registry import NETWORK_TYPES
from sid_jax.teachers import build

SMALL = {
    "img_resolution": 8, "img_channels": 3, "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [4], "dropout": 0.25,
}  # fmt: skip
NCSNPP = {
    **SMALL, "embedding_type": "fourier", "encoder_type": "residual", "resample_filter": [1, 3, 3, 1],
    "channel_mult_noise": 2,
}  # fmt: skip
FAST = jax.random.key(0, impl="rbg")  # its draws take little to compile
X, SIGMA = np.ones((2, 8, 8, 3), np.float32), np.array([0.1, 3], np.float32)


def abstract(values=SMALL, class_name="EDMPrecond", **options):
    return build(class_name, values, **options)


def shapes(component, method="with_features", x=X, **cond):
    """What a method of the network returns, abstractly."""

    def run(params, constants):
        return getattr(nnx.merge(component.graphdef, params, constants), method)(x, SIGMA, **cond)

    return jax.eval_shape(run, component.params, component.constants)


@pytest.mark.parametrize("class_name", ["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_each_is_a_denoiser(class_name):
    component = abstract(class_name=class_name)
    assert isinstance(component.module, DenoiserModule)
    for name in ("__call__", "with_features", "features"):
        parameters = inspect.signature(getattr(component.module, name)).parameters
        assert list(parameters)[:2] == ["x", "t"] and parameters["dropout_key"].default is None
        assert all(each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in list(parameters.values())[2:])
    output, features = shapes(component)
    assert (output.shape, features.shape) == (X.shape, (2, 4, 4, 16))
    assert shapes(component, "__call__").shape == X.shape
    assert shapes(component, "features").shape == features.shape
    logits = jax.eval_shape(component.module.logits, jax.ShapeDtypeStruct((2, 4, 4, 16), jnp.bfloat16))
    assert logits.shape == (2, 4, 4) and logits.dtype == jnp.float32


def test_features_leave_the_decoder_out():
    component = abstract()
    constants = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), component.constants)

    def flops(method):
        def run(params):
            return getattr(nnx.merge(component.graphdef, params, constants), method)(X, SIGMA)

        return jax.jit(run).lower(component.params).compile().cost_analysis()["flops"]

    assert flops("features") < 0.45 * flops("__call__")


def test_labels_that_a_network_has_not():
    shapes(abstract(), class_labels=np.array([-1, -1]))  # of a teacher without classes
    with pytest.raises(ValueError, match="augment_dim"):
        shapes(abstract(), augment_labels=np.zeros((2, 9)))
    with pytest.raises(ValueError, match="images of shape"):
        shapes(abstract(), x=np.ones((2, 16, 16, 3)))
    with pytest.raises(TypeError, match="encoder_hidden_states"):
        shapes(abstract(), encoder_hidden_states=X)


def test_half_precision_is_that_of_the_network_alone():
    component = abstract({**NCSNPP, "label_dim": 3}, dtype=jnp.bfloat16)
    output, features = shapes(component, class_labels=np.array([0, -1]))
    assert output.dtype == jnp.float32 and features.dtype == jnp.bfloat16

    def run(params, constants):
        return nnx.merge(component.graphdef, params, constants)(X, SIGMA)

    products = {"conv_general_dilated": set(), "dot_general": set(), "exp": set(), "cos": set()}
    collect(jax.make_jaxpr(run)(component.params, component.constants).jaxpr, products)
    assert products["conv_general_dilated"] == {"bfloat16"}
    assert products["cos"] == {"float32"}
    assert products["exp"] == {"float32"}  # of the softmax
    # Those of embeddings are float32, those of attention and 1 x 1 convolutions are not.
    assert products["dot_general"] == {"float32", "bfloat16"}


def collect(jaxpr, found):
    """Adds the types of the operations that `found` names, with those of jaxprs within."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in found:
            found[equation.primitive.name] |= {str(each.aval.dtype) for each in equation.invars}
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            collect(inner, found)


def test_dropout_is_a_share_of_zeros():
    x = jnp.ones((4, 16, 16, 32))
    dropped = np.asarray(layers._dropout(jax.random.key(0), x, 0.13))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / np.float32(0.87))}
    assert (dropped == 0).mean() == pytest.approx(0.13, abs=4 * math.sqrt(0.13 * 0.87 / x.size))


def test_each_block_has_a_key_of_its_own():
    def folds(values, key):
        component = abstract(values)

        def run(params, constants, key):
            return nnx.merge(component.graphdef, params, constants)(X, SIGMA, dropout_key=key)

        text = str(jax.make_jaxpr(run)(component.params, component.constants, key))
        lines = [line for line in text.splitlines() if "random_fold_in" in line]
        assert len(lines) == len({line.split("random_fold_in")[1] for line in lines})
        return len(lines), text.count("random_bits")

    blocks = 10  # in the encoder 1 + 2, in the decoder 4 + 3
    count, draws = folds(SMALL, jax.random.key(0))
    assert count == blocks and draws > 0
    assert folds(SMALL, None) == (0, 0)
    assert folds({**SMALL, "dropout": 0.0}, jax.random.key(0))[1] == 0


def test_dropout_is_the_same_when_computed_again():
    style = abstract().module.model.style
    block = layers.UNetBlock(8, 8, style, rngs=nnx.Rngs(FAST))
    graph, params = nnx.split(block)
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 8)).astype(np.float32)
    embedding = np.ones((2, style.embedding_channels), np.float32)

    def gradients(remat, key):
        def loss(params, key):
            return jnp.sum(
                run(Execution(remat=remat), layers.UNetBlock.__call__, nnx.merge(graph, params), x, embedding, key) ** 2
            )

        return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params, key))]

    kept, again, other = (
        gradients("none", FAST),
        gradients("full", FAST),
        gradients("full", jax.random.fold_in(FAST, 1)),
    )
    for one, same in zip(kept, again, strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-4 * np.abs(one).max())
    assert any(not np.allclose(one, another, rtol=1e-2) for one, another in zip(kept, other, strict=True))


def test_buffers_are_held_to_the_configuration():
    component = abstract(NCSNPP, "iDDPMPrecond")
    constants = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(component.constants)}
    assert set(constants) == {
        "u", "model.map_noise.freqs",
        *(f"model.enc.4x4_{name}.resample_filter" for name in ("down.conv0", "down.skip", "aux_residual")),
        *(f"model.dec.8x8_up.{name}.resample_filter" for name in ("conv0", "skip")),
    }  # fmt: skip
    assert all(isinstance(leaf, Constant) for leaf in constants.values())
    tensors = {}
    leaves = dict(nnx.to_flat_state(nnx.state(component.module)))
    for name, slot in layout(component.module).items():
        known = getattr(leaves[slot.path], "expected", None)
        tensors[name] = np.ones(slot.shape, np.float32)
        if known is not None:
            tensors[name] = np.frombuffer(known, "<f4").reshape(slot.shape)
    stored = {name: Stored(tensor.shape, "float32") for name, tensor in tensors.items()}

    def read(name, factor):
        changed = {**tensors, name: tensors[name] * np.float32(factor)}
        to_params(component.module, stored, changed.items(), where="file")

    read("model.map_noise.freqs", 2)
    read("u", 1 + 1e-3)  # as float32 rounds
    for name, factor in (("model.enc.4x4_aux_residual.resample_filter", 1.001), ("u", 1.01)):
        with pytest.raises(UserError, match=name):
            read(name, factor)


def made_here(values, monkeypatch):
    """The tensors of a network that is made here, with the spread of each law in place of its draws."""
    monkeypatch.setattr(init, "_initializer", lambda spread, uniform: lambda key, shape, dtype: jnp.full(shape, spread))
    component = abstract(values)
    module = NETWORK_TYPES["EDMPrecond"].module(component.config, rngs=nnx.Rngs(FAST))
    return {name: tensor.flat[0] for name, tensor in from_params(component.module, nnx.state(module))}


def test_initial_values_of_song(monkeypatch):
    tensors = made_here({**SMALL, "label_dim": 3, "augment_dim": 9, "model_channels": 16}, monkeypatch)
    block = "model.enc.4x4_block0"
    for name, fans, scale in (
        (f"{block}.conv0", 9 * (16 + 32), 1),
        (f"{block}.conv1", 9 * (32 + 32), 1e-5),
        (f"{block}.qkv", 32 + 96, math.sqrt(0.2)),
        (f"{block}.proj", 32 + 32, 1e-5),
        (f"{block}.skip", 16 + 32, 1),
        (f"{block}.affine", 64 + 32, 1),
        ("model.map_layer1", 64 + 64, 1),
        ("model.map_label", 3 + 16, 1),
        ("model.map_augment", 9 + 16, 1),
        ("model.dec.8x8_aux_conv", 9 * (16 + 3), 1e-5),
    ):
        assert tensors[f"{name}.weight"] == pytest.approx(scale * math.sqrt(6 / fans))
        assert tensors.get(f"{name}.bias", 0) == 0
    assert (tensors[f"{block}.norm0.weight"], tensors[f"{block}.norm0.bias"]) == (1, 0)


def test_initial_values_of_dhariwal(monkeypatch):
    adm = {**SMALL, "model_type": "DhariwalUNet", "model_channels": 64, "channel_mult": [1]}
    tensors = made_here({**adm, "label_dim": 50, "augment_dim": 9}, monkeypatch)
    block = "model.dec.8x8_in0"
    for name, fan in ((f"{block}.conv0", 9 * 64), (f"{block}.qkv", 64), (f"{block}.affine", 256)):
        assert tensors[f"{name}.weight"] == pytest.approx(1 / math.sqrt(fan))
        assert tensors[f"{name}.bias"] == pytest.approx(1 / math.sqrt(fan))
    assert tensors["model.map_label.weight"] == pytest.approx(1)  # sqrt(50) times sqrt(1 / 50)
    for name in (f"{block}.conv1", f"{block}.proj", "model.out_conv"):
        assert tensors[f"{name}.weight"] == tensors[f"{name}.bias"] == 0
    assert tensors["model.map_augment.weight"] == 0


def test_the_draws_of_initial_values():
    uniform = np.asarray(init.Init("xavier_uniform", 2.0).kernel_init(40, 56)(FAST, (100, 100)))
    assert np.abs(uniform).max() == pytest.approx(0.5, rel=0.01) and uniform.min() < -0.49
    assert uniform.std() == pytest.approx(0.5 / math.sqrt(3), rel=0.05)
    normal = np.asarray(init.Init("kaiming_normal").kernel_init(4, 1)(FAST, (100, 100)))
    assert normal.std() == pytest.approx(0.5, rel=0.05) and np.abs(normal).max() > 1.2


def test_convolutions_are_those_of_the_platform():
    def convolutions(platform):
        values = {**SMALL, "model_channels": 64, "channel_mult": [1], "img_resolution": 32}
        component = abstract(values, execution=Execution(platform=platform))

        def run(params):
            return nnx.merge(component.graphdef, params, component.constants)(np.ones((2, 32, 32, 3)), SIGMA)

        return str(jax.make_jaxpr(run)(component.params)).count("conv_general_dilated[")

    assert convolutions("gpu") == 2 + 2 * 5  # five blocks
    assert convolutions("cpu") == 2  # with three channels, of the image
