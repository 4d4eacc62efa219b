"""Attention on this machine's CPU against PyTorch's, on the same cores: forward and backward, in float32.

Both are given the same arrays and take turns. Ours is what training uses on a CPU, "auto"; PyTorch's is
`scaled_dot_product_attention`.

  python -m benchmarks.attention_cpu
  python -m benchmarks.attention_cpu --batch 4 --repeats 9
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.attention import draw, with_gradients
from benchmarks.turns import medians, seconds_by_turns
from sid_jax.models import Execution
from sid_jax.models.layers.attention import attend, choose
from sid_jax.runtime.cli import command_line

LENGTHS, HEAD_SIZES, HEADS = (256, 1024, 4096), (40, 64), 8


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m benchmarks.attention_cpu", __doc__)
    parser.add_argument("--batch", type=int, default=1, help="samples (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="the times are medians of these (default: 5)")
    arguments = parser.parse_args(argv)
    execution = Execution(platform="cpu")
    print(f"float32, batch {arguments.batch}, {HEADS} heads, {torch.get_num_threads()} threads of PyTorch's\n")
    print("| positions | head size | implementation | ms | PyTorch's ms | ratio | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for length in LENGTHS:
        for size in HEAD_SIZES:
            inputs = draw(arguments.batch, length, length, HEADS, size, "float32")
            sides = {"ours": ours(execution, inputs), "theirs": theirs(inputs)}
            difference = max(
                np.abs(a - b).max() / np.abs(b).max()
                for a, b in zip(sides["ours"](), sides["theirs"](), strict=True)
            )  # fmt: skip
            ms = {name: 1e3 * each for name, each in medians(seconds_by_turns(sides, arguments.repeats)).items()}
            name = choose(execution, inputs[0].shape, length, "float32")
            times = f"{ms['ours']:.1f} | {ms['theirs']:.1f} | {ms['ours'] / ms['theirs']:.2f}"
            print(f"| {length} | {size} | {name} | {times} | {difference:.0e} |", flush=True)


def ours(execution: Execution, inputs: list[jax.Array]) -> Callable[[], Any]:
    """The output and the three gradients, as NumPy's arrays."""
    function = jax.jit(with_gradients(functools.partial(attend, execution=execution)))
    return lambda: [np.asarray(x) for x in function(*inputs)]


def theirs(inputs: list[jax.Array]) -> Callable[[], Any]:
    """The same in PyTorch, whose heads come before the positions."""
    *given, of_out = (torch.from_numpy(np.array(x)).transpose(1, 2) for x in inputs)
    for each in given:
        each.requires_grad_()

    def call() -> list[np.ndarray]:
        out = torch.nn.functional.scaled_dot_product_attention(*given)
        results = [out, *torch.autograd.grad(out, given, of_out)]
        return [x.detach().transpose(1, 2).numpy() for x in results]

    return call


if __name__ == "__main__":
    sys.exit(command_line.run(main))
