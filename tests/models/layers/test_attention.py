"""The implementations of attention against its formula, in value and gradient, and the choice between them."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from sid_jax.models import Execution
from sid_jax.models.layers.attention import AttentionError, attend, choose, dispatch
from sid_jax.models.layers.attention.blocked import LOGITS, blocked
from sid_jax.models.layers.attention.chunked import chunked
from sid_jax.models.layers.attention.kernels import splash
from sid_jax.models.layers.attention.plain import plain

BFLOAT16, FLOAT32 = jnp.dtype("bfloat16"), jnp.dtype("float32")
TOLERANCE = {FLOAT32: 1e-5, BFLOAT16: 2e-2}


def arrays(length, key_length, head_size, dtype, heads=2):
    rng = np.random.default_rng(0)
    shapes = [(2, n, heads, head_size) for n in (length, key_length, key_length, length)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def formula(query, key, value, causal=False):
    """Attention as the papers write it, for JAX to differentiate."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
    logits = jnp.where(jnp.tri(*logits.shape[2:], dtype=bool), logits, -jnp.inf) if causal else logits
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), value)


def with_gradients(function, query, key, value, cotangent):
    out, pull_back = jax.vjp(function, query, key, value)
    return out, *pull_back(cotangent)


def assert_is_attention(function, *inputs, causal=False, tolerance=TOLERANCE):
    expected = functools.partial(with_gradients, functools.partial(formula, causal=causal))
    expected = jax.jit(expected)(*(x.astype(jnp.float32) for x in inputs))
    actual = jax.jit(functools.partial(with_gradients, function))(*inputs)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == inputs[0].dtype
        error = jnp.abs(ours.astype(jnp.float32) - theirs).max() / jnp.abs(theirs).max()
        assert error <= tolerance[inputs[0].dtype]


@pytest.mark.parametrize(("causal", "dtype"), [(False, BFLOAT16), (True, FLOAT32)])
def test_plain_is_attention(causal, dtype):
    assert_is_attention(lambda *x: plain(*x, causal), *arrays(12, 9 if not causal else 12, 8, dtype), causal=causal)


@pytest.mark.parametrize(
    ("length", "key_length", "head_size", "dtype"),
    [
        (50, 70, 24, FLOAT32),
        (96, 64, 160, BFLOAT16),
        pytest.param(5, 3, 8, FLOAT32, marks=pytest.mark.slow),
        pytest.param(64, 64, 40, BFLOAT16, marks=pytest.mark.slow),
    ],
)
def test_chunked_is_attention(length, key_length, head_size, dtype):
    assert_is_attention(functools.partial(chunked, chunk=32), *arrays(length, key_length, head_size, dtype))


@pytest.mark.parametrize(
    ("length", "key_length", "head_size", "dtype", "logits"),
    [
        pytest.param(50, 70, 24, FLOAT32, 70 * 40, id="blocks-of-queries"),
        pytest.param(60, 256, 24, FLOAT32, 1, id="and-of-keys"),
        pytest.param(24, 40, 8, BFLOAT16, 2 * 24 * 40, id="two-heads-at-once"),
        pytest.param(200, 190, 8, FLOAT32, LOGITS, id="lanes"),
        pytest.param(190, 180, 24, BFLOAT16, LOGITS, id="lanes-that-keep-weights"),
        pytest.param(5, 3, 40, FLOAT32, 1, id="fewer-than-a-block", marks=pytest.mark.slow),
        pytest.param(64, 64, 40, BFLOAT16, 64 * 16, id="half-precision", marks=pytest.mark.slow),
    ],
)
def test_blocked_is_attention(length, key_length, head_size, dtype, logits):
    inputs = arrays(length, key_length, head_size, dtype)
    tolerance = {**TOLERANCE, FLOAT32: 2e-6}
    assert_is_attention(functools.partial(blocked, logits=logits, queries=16), *inputs, tolerance=tolerance)


@pytest.mark.parametrize(
    ("length", "head_size", "dtype"),
    [
        (256, 40, FLOAT32),
        (128, 160, BFLOAT16),
        pytest.param(384, 80, FLOAT32, marks=pytest.mark.slow),
        pytest.param(384, 64, BFLOAT16, marks=pytest.mark.slow),
    ],
)
def test_splash_is_attention(length, head_size, dtype):
    assert_is_attention(functools.partial(splash, interpret=True), *arrays(length, length, head_size, dtype))


@pytest.mark.parametrize(
    "implementation", [functools.partial(chunked, chunk=128), functools.partial(blocked, logits=2**14, queries=16)]
)
def test_a_part_of_the_logits_is_held(implementation):
    """The same part on four times as many positions: four times the memory, where plain has sixteen times as much."""

    def bytes_of(length):
        inputs = arrays(length, length, 8, FLOAT32, heads=4)
        function = functools.partial(with_gradients, implementation)
        return jax.jit(function).lower(*inputs).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(2048) <= 4.5 * bytes_of(512)


LONG, CROSS = (4096, 4096), (4096, 77)


@pytest.mark.parametrize(
    ("platform", "asked", "lengths", "head_size", "dtype", "expected"),
    [
        ("gpu", "auto", LONG, 40, BFLOAT16, "cudnn"),
        ("gpu", "auto", LONG, 40, FLOAT32, "chunked"),
        ("gpu", "auto", (2048, 2048), 64, FLOAT32, "xla"),
        ("gpu", "auto", LONG, 160, BFLOAT16, "chunked"),
        ("gpu", "auto", (256, 256), 160, BFLOAT16, "xla"),
        ("gpu", "auto", CROSS, 40, BFLOAT16, "xla"),
        ("gpu", "cudnn", CROSS, 40, BFLOAT16, "xla"),
        ("gpu", "cudnn", (1024, 1024), 80, BFLOAT16, "cudnn"),
        ("tpu", "auto", LONG, 40, BFLOAT16, "splash"),
        ("tpu", "auto", LONG, 160, FLOAT32, "splash"),
        ("tpu", "auto", (4100, 4100), 40, BFLOAT16, "chunked"),
        ("tpu", "auto", LONG, 512, FLOAT32, "chunked"),
        ("tpu", "splash", (64, 64), 160, BFLOAT16, "xla"),
        ("tpu", "xla", LONG, 40, BFLOAT16, "xla"),
        ("cpu", "auto", LONG, 40, FLOAT32, "blocked"),
        ("cpu", "auto", (256, 77), 40, FLOAT32, "blocked"),
        ("cpu", "auto", (16, 16), 40, FLOAT32, "xla"),
        ("cpu", "xla", LONG, 40, FLOAT32, "xla"),
        ("cpu", "chunked", (1024, 1024), 40, FLOAT32, "chunked"),
        ("gpu", "blocked", (1024, 1024), 40, FLOAT32, "blocked"),
    ],
)
def test_the_choice(platform, asked, lengths, head_size, dtype, expected):
    execution = Execution(asked, platform=platform)
    assert choose(execution, (1, lengths[0], 8, head_size), lengths[1], dtype) == expected


@pytest.mark.parametrize(
    ("platform", "asked", "length", "head_size", "dtype", "problem"),
    [
        ("gpu", "cudnn", 4096, 160, BFLOAT16, "'cudnn' has head sizes that are multiples of 8 up to 128, not 160"),
        ("gpu", "cudnn", 4096, 40, FLOAT32, "'cudnn' computes in bfloat16 and float16, not in float32"),
        ("tpu", "splash", 1100, 40, BFLOAT16, "'splash' has lengths that are multiples of 128"),
    ],
)
def test_what_is_asked_for_is_not_replaced(platform, asked, length, head_size, dtype, problem):
    with pytest.raises(ValueError, match=f"^attention.implementation: {problem}"):
        choose(Execution(asked, platform=platform), (1, length, 8, head_size), length, dtype)


@pytest.mark.parametrize("asked", ["xla", "chunked", "blocked", None])
@pytest.mark.parametrize("wrapped", [lambda function: function, jax.checkpoint])
def test_the_backward_pass_is_as_precise_as_the_forward_pass(asked, wrapped):
    """The context that says how precise is over when JAX traces the backward pass; with remat, the forward pass too."""
    execution = Execution(asked, long_attention=1, platform="cpu") if asked else None
    attention = wrapped(functools.partial(attend, execution=execution))

    def loss(*inputs):
        with jax.default_matmul_precision("highest"):
            return jnp.sum(attention(*inputs) ** 2)

    inputs = [jax.ShapeDtypeStruct((1, 16, 2, 8), FLOAT32)] * 3
    text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*inputs).as_text()
    products = re.findall(r"stablehlo\.dot_general\b.*", text)
    assert len(products) >= 6 and all(product.count("HIGHEST") == 2 for product in products)


def test_kernels_of_smaller_types_are_not_asked_for_more(monkeypatch):
    """Splash does not compile for bfloat16 at "highest", at which products of float32 beside it are."""
    seen = []

    def splash(query, key, value):
        seen.append(jax.config.jax_default_matmul_precision)
        return query

    monkeypatch.setitem(dispatch._FUNCTIONS, "splash", splash)
    attention = functools.partial(attend, execution=Execution("splash", long_attention=1, platform="tpu"))
    for dtype in (BFLOAT16, jnp.float32):
        with jax.default_matmul_precision("highest"):
            jax.eval_shape(attention, *[jax.ShapeDtypeStruct((1, 128, 2, 8), dtype)] * 3)
    assert seen == ["default", "highest"]


def test_without_cudnn_it_is_one_line(monkeypatch):
    def check_cudnn_version():
        raise RuntimeError("cuDNN not found.")

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", check_cudnn_version)
    inputs = [jax.ShapeDtypeStruct((1, 1024, 8, 40), BFLOAT16)] * 3
    attention = functools.partial(attend, execution=Execution("auto", platform="gpu"))
    with pytest.raises(
        AttentionError, match=r"^attention\.implementation: cuDNN.* is not installed: install it with JAX"
    ):
        jax.eval_shape(attention, *inputs)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"attention": "fast"},
            "attention.implementation: 'fast' is not one of auto, xla, chunked, blocked, cudnn, splash",
        ),
        ({"attention": "cudnn", "platform": "tpu"}, "attention.implementation: 'cudnn' is for gpus, not for tpus"),
        ({"attention": "splash", "platform": "cuda"}, "attention.implementation: 'splash' is for tpus, not for gpus"),
        ({"long_attention": 0}, "attention.long: 0 is not"),
    ],
)
def test_a_wrong_option_is_an_error(options, problem):
    with pytest.raises(ValueError, match=f"^{problem}"):
        Execution(**options)


@pytest.mark.parametrize(
    ("platform", "lowered_for", "calls"),
    [("gpu", "cuda", ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")), ("tpu", "tpu", ("tpu_custom_call",))],
)
def test_kernels_are_called(platform, lowered_for, calls, monkeypatch):
    """Lowered for devices that are not here."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    attention = functools.partial(attend, execution=Execution(platform=platform))
    shapes = [jax.ShapeDtypeStruct((2, 1024, 4, 40), BFLOAT16)] * 4
    traced = jax.jit(functools.partial(with_gradients, attention)).trace(*shapes)
    text = traced.lower(lowering_platforms=(lowered_for,)).as_text()
    for call in calls:
        assert call in text


EIGHT_DEVICES = """
import functools
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sid_jax.models import Execution
from sid_jax.models.layers.attention.blocked import blocked
from sid_jax.models.layers.attention.kernels import splash
from sid_jax.models.layers.attention.plain import plain

mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
execution = Execution(mesh=mesh)
query, key, value, cotangent = np.random.default_rng(0).standard_normal((4, 8, 128, 2, 40)).astype(np.float32)

def with_gradients(function, query, key, value):
    out, pull_back = jax.vjp(function, query, key, value)
    return out, *pull_back(cotangent)

batch = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
inputs = [jax.device_put(x, batch) for x in (query, key, value)]
expected = with_gradients(plain, query, key, value)
for kernel in (functools.partial(splash, interpret=True), functools.partial(blocked, logits=2**13, queries=16)):
    attention = functools.partial(execution.by_device, kernel)
    compiled = jax.jit(functools.partial(with_gradients, attention)).lower(*inputs).compile()
    assert "all-gather" not in compiled.as_text()
    for ours, theirs in zip(compiled(*inputs), expected):
        assert ours.sharding.is_equivalent_to(batch, 4), ours.sharding
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())

# Eight devices can't share three samples.
assert execution.by_device(lambda x: x + 1, query[:3]).shape == (3, 128, 2, 40)
"""


def test_kernels_run_on_their_part_of_the_batch(eight_devices):
    eight_devices(EIGHT_DEVICES)
