"""PyTorch's bicubic interpolation without antialias, as a matrix."""

import functools
import math

import numpy as np

_A = -0.75
"""Keys' parameter: PyTorch's without antialias. With antialias PyTorch has -0.5, as PIL has."""


@functools.cache
def torch_bicubic(size: int, wanted: int, scale: float | None = None) -> np.ndarray:
    """What `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` multiplies an axis with.

    Args:
      size: of the axis.
      wanted: its size after it.
      scale: steps of the axis from one result to the next, where PyTorch is given a `scale_factor`: 1 / that. None:
        where it is given a size: size / wanted.

    Returns:
      float32 `[wanted, size]`.
    """
    step = size / wanted if scale is None else scale
    weights = np.zeros((wanted, size))
    for row in range(wanted):
        position = (row + 0.5) * step - 0.5
        first = math.floor(position)
        share = position - first
        for place, distance in zip(range(first - 1, first + 3), (1 + share, share, 1 - share, 2 - share), strict=True):
            weights[row, min(max(place, 0), size - 1)] += _cubic(distance)
    return weights.astype(np.float32)


def _cubic(x: float) -> float:
    """Keys' cubic convolution (1981) at a distance of 0 to 2."""
    if x <= 1:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1
    return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
