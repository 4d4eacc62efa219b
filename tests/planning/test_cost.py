"""Costs that are known by hand, read off the text of HLO."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from sid_jax.planning import hlo
from sid_jax.planning.arithmetic import flops
from sid_jax.planning.cost import attention_flops, cost_of
from sid_jax.planning.targets import Chip

CHIP = Chip(memory=1e9, flops=1e12, bandwidth=1e9, float32=1e11)


def lowered(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arguments)


def module(function, *shapes):
    return hlo.parse(lowered(function, *shapes).as_text(dialect="hlo"))


def conv(x, w, **options):
    return jax.lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


@pytest.mark.parametrize(
    "function, shapes, expected",
    [
        (lambda a, b: a @ b, [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        (lambda a, b: jnp.einsum("bqhd,bkhd->bhqk", a, b), [(2, 3, 4, 5), (2, 7, 4, 5)], 2 * 2 * 4 * 3 * 7 * 5),
        # Without padding, every output sees all of its window.
        (
            lambda x, w: conv(x, w, window_strides=(2, 2), padding="VALID"),
            [(2, 9, 9, 4), (3, 3, 4, 6)],
            2 * 2 * 4 * 4 * 9 * 4 * 6,
        ),
        # Of 8 places along an axis two see 2 places of the kernel and the others 3: 22 pairs.
        (
            lambda x, w: conv(x, w, window_strides=(1, 1), padding="SAME"),
            [(1, 8, 8, 4), (3, 3, 4, 6)],
            2 * 22 * 22 * 4 * 6,
        ),
    ],
)
def test_one_operation(function, shapes, expected):
    assert cost_of(module(function, *shapes)).flops == expected


@pytest.mark.parametrize("precision, peak", [("highest", CHIP.float32), ("default", CHIP.flops)])
def test_products_in_whole_float32_take_their_own_peak(precision, peak):
    def both(x, w, a, b):
        return conv(x, w, window_strides=(1, 1), padding="SAME"), a @ b

    with jax.default_matmul_precision(precision):
        cost = cost_of(module(both, (2, 8, 8, 64), (3, 3, 64, 64), (64, 64), (64, 64)), CHIP)
    assert cost.busy_seconds == pytest.approx(cost.flops / peak)
    assert cost.seconds >= cost.busy_seconds


def test_derivatives_are_xlas_own_count():
    """XLA counts the additions and multiplications of elements too, of which this has none of any size."""

    def loss(x, w):
        return jnp.sum(conv(x, w, window_strides=(2, 2), padding=[(1, 1), (1, 1)]))

    both = lowered(jax.grad(loss, (0, 1)), (2, 16, 16, 32), (3, 3, 32, 32))
    expected = both.cost_analysis()["flops"]
    assert cost_of(hlo.parse(both.as_text(dialect="hlo"))).flops == pytest.approx(expected, rel=0.02)


def scanned(length):
    def function(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=length)[0]

    return function


def test_a_loop_counts_as_often_as_it_runs():
    one = 2 * 4 * 16 * 16
    program = module(scanned(6), (4, 16), (16, 16))
    assert cost_of(program).flops == 6 * one
    assert cost_of(program, unrolled=False).flops == one


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    def function(x, w):
        turns = jnp.sum(x > 0)
        return jax.lax.fori_loop(0, turns, lambda _, x: x @ w, x)

    cost = cost_of(module(function, (4, 16), (16, 16)))
    assert cost.flops == 2 * 4 * 16 * 16
    assert cost.dynamic_loops == 1


def test_compiled_programs_are_read_too():
    compiled = lowered(scanned(6), (4, 16), (16, 16)).compile()
    assert cost_of(hlo.parse(compiled.as_text())).flops == 6 * 2 * 4 * 16 * 16


TPU = """\
HloModule jit_f, is_scheduled=true

%fused (param_0: bf16[128,256], param_1: bf16[256,512]) -> bf16[128,512] {
  %param_0 = bf16[128,256]{1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = bf16[256,512]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %convolution.1 = bf16[128,512]{1,0} convolution(%param_0, %param_1), dim_labels=bf_io->bf
}

ENTRY %main (p0: bf16[128,256], p1: bf16[64,512]) -> bf16[128,512] {
  %p0 = bf16[128,256]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[64,512]{1,0:T(8,128)(2,1)} parameter(1)
  %all-gather.1 = bf16[256,512]{1,0:T(8,128)(2,1)S(1)} all-gather(%p1), dimensions={0}
  ROOT %fusion.1 = bf16[128,512]{1,0} fusion(%p0, %all-gather.1), kind=kOutput, calls=%fused
}
"""


def test_traffic_is_that_of_the_main_memory_and_time_the_larger_of_two():
    cost = cost_of(hlo.parse(TPU), CHIP)
    gathered = 64 * 512 * 2  # the result is in another memory
    fused = 128 * 256 * 2 + 128 * 512 * 2
    assert cost.bytes == gathered + fused
    assert cost.collectives == {"all-gather": 256 * 512 * 2}
    assert cost.flops == 2 * 128 * 256 * 512
    assert cost.seconds == pytest.approx((gathered + fused) / CHIP.bandwidth)
    assert cost.launches == 2  # a fusion is one kernel
    assert cost.launch_seconds == 0
    assert cost_of(hlo.parse(TPU), dataclasses.replace(CHIP, launch=1e-6)).launch_seconds == pytest.approx(2e-6)


def instruction(line):
    """The last instruction of a computation and the types of its operands."""
    shapes = "\n".join(f"  %{name} = bf16[{dims}] parameter({i})" for i, (name, dims) in enumerate(OPERANDS.items()))
    program = hlo.parse(f"ENTRY %main (q: bf16[1]) -> bf16[1] {{\n{shapes}\n  ROOT {line}\n}}\n")
    found = program.computations["main"]["x"]
    return found, program.operands("main", found)


OPERANDS = {
    "mask": "4,1",
    "q": "16,40,64",
    "k": "16,40,32",
    "v": "16,40,32",
    "q_": "2,64,8,40",
    "k_": "2,32,8,40",
    "v_": "2,32,8,40",
    "image": "2,8,8,4",
    "kernel": "3,3,4,6",
    "dy": "2,8,8,6",
}
ATTENTION = 4 * 2 * 8 * 64 * 32 * 40


@pytest.mark.parametrize(
    "name, outputs, factor",
    [
        ("mha_fwd", "bf16[16,64,40]", 1),
        ("mha_dkv", "(bf16[16,32,40], bf16[16,32,40])", 1.5),
        ("mha_dkv", "(f32[64,40], bf16[1,16,64,40], bf16[16,32,40], bf16[16,32,40])", 2.5),
        ("mha_dq", "bf16[16,64,40]", 1),
    ],
)
def test_attention_kernels_are_counted_apart(name, outputs, factor):
    call = f'%x = {outputs} custom-call(%mask, %q, %k, %v), custom_call_target="tpu_custom_call"'
    about = f'frontend_attributes={{kernel_metadata={{\n\n}}}}, metadata={{op_name="{name}/pallas_call"}}'
    found = instruction(f"{call}, {about}")
    assert flops(*found) == 0
    assert attention_flops(*found) == factor * ATTENTION


@pytest.mark.parametrize("suffix, factor", [("", 1), ("Backward", 2.5)])
def test_attention_of_cudnn_has_the_heads_after_the_positions(suffix, factor):
    line = f'%x = (bf16[1], u8[0]) custom-call(%q_, %k_, %v_), custom_call_target="__cudnn$fmhaSoftmax{suffix}"'
    assert attention_flops(*instruction(line)) == factor * ATTENTION


@pytest.mark.parametrize(
    "target, operands, output",
    [
        ("Forward", "%image, %kernel", "2,8,8,6"),
        ("BackwardInput", "%dy, %kernel", "2,8,8,4"),
        ("BackwardFilter", "%image, %dy", "3,3,4,6"),
    ],
)
def test_convolutions_of_cudnn_and_its_derivatives(target, operands, output):
    line = (
        f"%x = (bf16[{output}], u8[0]) custom-call({operands}), window={{size=3x3 pad=1_1x1_1}}, "
        f'dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$conv{target}"'
    )
    assert flops(*instruction(line)) == 2 * 2 * 8 * 8 * 9 * 4 * 6


def test_a_library_call_says_its_precision_in_its_configuration():
    text = """HloModule m

ENTRY %main (a: f32[64,64], b: f32[64,64]) -> f32[64,64] {
  %a = f32[64,64]{1,0} parameter(0)
  %b = f32[64,64]{1,0} parameter(1)
  ROOT %x = f32[64,64]{1,0} custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]},"precision_config":{"operand_precision":["HIGHEST"]}}}
}
""".replace("\\\n", "")
    cost = cost_of(hlo.parse(text), CHIP)
    assert cost.flops == 2 * 64**3
    assert cost.busy_seconds == pytest.approx(cost.flops / CHIP.float32)
