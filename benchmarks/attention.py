"""Every implementation of attention on this machine's device: how far from the plain one in float32, and how fast.

The shapes are those of the networks: self-attention of SD1.5 at 512 px, of SD2.1 at 768 px and of SDXL at 1024 px, and
cross-attention to 77 tokens. Errors are the largest ones, in parts of the largest entry, of the output and of all three
gradients; the time is that of the output and the gradients together. What can't run here is listed with the reason.

  python -m benchmarks.attention
  python -m benchmarks.attention --dtype bfloat16 --batch 4
"""

import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from sid_jax.models import Execution
from sid_jax.models.layers.attention import attend
from sid_jax.models.layers.attention.plain import plain
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices.precision import parse_dtype

SHAPES = {
    "SD1.5 64x64": (4096, 4096, 8, 40),
    "SD1.5 32x32": (1024, 1024, 8, 80),
    "SD1.5 16x16": (256, 256, 8, 160),
    "SD2.1 48x48": (2304, 2304, 10, 64),
    "SDXL 64x64": (4096, 4096, 10, 64),
    "SDXL 32x32": (1024, 1024, 20, 64),
    "SD1.5 text": (4096, 77, 8, 40),
}
"""Positions, positions attended to, heads and head size."""
IMPLEMENTATIONS = ("xla", "chunked", "blocked", "cudnn", "splash")


def main(argv=None):
    """The command."""
    parser = command_line.Parser("python -m benchmarks.attention", __doc__)
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16 (default: float32)")
    parser.add_argument("--batch", type=int, default=1, help="samples (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="the time is the median of these (default: 3)")
    arguments = parser.parse_args(argv)
    dtype = parse_dtype("--dtype", arguments.dtype)

    print(f"{jax.devices()[0].device_kind}, {dtype}, batch {arguments.batch}\n")
    print("| shape | implementation | error of output | of gradients | ms |\n|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        inputs = draw(arguments.batch, *shape, dtype)
        expected = jax.jit(with_gradients(plain))(*(x.astype(jnp.float32) for x in inputs))
        for implementation in IMPLEMENTATIONS:
            print(f"| {name} | {implementation} | {row(implementation, inputs, expected, arguments.repeats)} |")


def row(implementation, inputs, expected, repeats):
    """The last three columns, or why there are none."""
    try:
        # Without a shortest length everything runs as it is asked for, cross-attention too.
        execution = Execution(implementation, long_attention=1)
        function = jax.jit(with_gradients(functools.partial(attend, execution=execution)))
        actual = jax.block_until_ready(function(*inputs))
    except ValueError as error:
        return f"- | - | {error}"
    errors = [
        float(jnp.abs(a.astype(jnp.float32) - e).max() / jnp.abs(e).max())
        for a, e in zip(actual, expected, strict=True)
    ]
    return f"{errors[0]:.1e} | {max(errors[1:]):.1e} | {1e3 * seconds(function, inputs, repeats):.1f}"


def seconds(function, inputs, repeats):
    """The median time of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*inputs))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def with_gradients(function):
    """(query, key, value, cotangent of the output) -> the output and the three gradients."""

    def both(query, key, value, of_out):
        out, pull_back = jax.vjp(function, query, key, value)
        return out, *pull_back(of_out)

    return both


def draw(batch, length, key_length, heads, head_size, dtype):
    """Query, key, value and cotangent, normally distributed."""
    lengths = (length, key_length, key_length, length)
    keys = jax.random.split(jax.random.key(0), 4)
    return [
        jax.random.normal(k, (batch, n, heads, head_size)).astype(dtype) for k, n in zip(keys, lengths, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(command_line.run(main))
