"""Counts the floating point operations of single HLO instructions: products of matrices and convolutions, no others.

A multiplication with an addition counts two. Products with the zeros of padding and dilation are not counted; XLA's own
cost analysis leaves them out too.
"""

import functools
import re
from collections.abc import Callable

import numpy as np

from sid_jax.planning.hlo import Array, Instruction


def flops(instruction: Instruction, operands: list[Array]) -> int:
    """Operations of one execution of an instruction.

    Args:
      instruction: a `dot`, a `convolution`, or a call of cuBLAS or cuDNN; any other has 0.
      operands: its arguments.
    """
    if instruction.opcode == "dot":
        return _dot(instruction.outputs[0], operands[0], _dims(instruction, "lhs_contracting_dims"))
    if instruction.opcode == "convolution":
        return _convolution(instruction, operands)
    if instruction.opcode == "custom-call":
        return _library(instruction, operands)
    return 0


def _dims(instruction: Instruction, key: str) -> list[int]:
    return [int(dim) for dim in re.findall(r"\d+", instruction.attribute(rf"\b{key}=\{{([\d,]*)\}}"))]


def _dot(output: Array, lhs: Array, contracting: list[int]) -> int:
    products = output.size
    for dim in contracting:
        products *= lhs.dims[dim]
    return 2 * products


def _convolution(instruction: Instruction, operands: list[Array]) -> int:
    lhs, rhs, out = (labels for labels in re.split(r"_|->", instruction.attribute(r"\bdim_labels=([\w>?-]+)")))
    image, kernel = operands[:2]
    output = instruction.outputs[0]
    window = _window(instruction.attribute(r"\bwindow=\{([^}]*)\}"))
    groups = int(instruction.attribute(r"\bfeature_group_count=(\d+)") or 1)
    batches = int(instruction.attribute(r"\bbatch_group_count=(\d+)") or 1)
    products = image.dims[lhs.index("f")] // groups * kernel.dims[rhs.index("o")]
    products *= image.dims[lhs.index("b")] // batches
    for axis in sorted(label for label in lhs if label.isdigit()):
        sizes = (image.dims[lhs.index(axis)], kernel.dims[rhs.index(axis)], output.dims[out.index(axis)])
        products *= _positions(*sizes, *window(int(axis)))
    return 2 * products


def _window(text: str) -> Callable[[int], tuple[int, int, int, int]]:
    """A function: spatial axis -> (stride, padding before, dilation of the image, dilation of the kernel)."""
    fields = {key: value.split("x") for key, value in (part.split("=") for part in text.split())}

    def of_axis(axis: int) -> tuple[int, int, int, int]:
        stride, pad, lhs, rhs = (fields.get(key) for key in ("stride", "pad", "lhs_dilate", "rhs_dilate"))
        return (
            int(stride[axis]) if stride else 1,
            int(pad[axis].split("_")[0]) if pad else 0,
            int(lhs[axis]) if lhs else 1,
            int(rhs[axis]) if rhs else 1,
        )

    return of_axis


@functools.cache
def _positions(image: int, kernel: int, output: int, stride: int, padding: int, dilate: int, kernel_dilate: int) -> int:
    """Pairs of a place in the output and one in the kernel, along one axis, that meet a value of the image."""
    place = np.arange(output)[:, None] * stride + np.arange(kernel) * kernel_dilate - padding
    return int(np.sum((place % dilate == 0) & (place >= 0) & (place < image * dilate)))


def _library(instruction: Instruction, operands: list[Array]) -> int:
    target = instruction.attribute(r'custom_call_target="([^"]*)"')
    if target.startswith("__cublas"):
        contracting = instruction.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
        return _dot(instruction.outputs[0], operands[0], [int(dim) for dim in re.findall(r"\d+", contracting)])
    if target.startswith("__cudnn$conv"):
        # A convolution's two derivatives have as many products: each multiplies every output with every weight of its
        # window.
        _, rhs, _ = re.split(r"_|->", instruction.attribute(r"\bdim_labels=([\w>?-]+)"))
        kernel, output = operands[1], instruction.outputs[0]
        if target.startswith("__cudnn$convBackwardInput"):
            output = operands[0]
        elif target.startswith("__cudnn$convBackwardFilter"):
            kernel, output = instruction.outputs[0], operands[1]
        return 2 * output.size * kernel.size // kernel.dims[rhs.index("o")]
    return 0
