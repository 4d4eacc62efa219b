"""What multiplies by the matrix of a linear layer or of a 1x1 convolution."""

from collections.abc import Callable
from typing import Any

import jax

from sid_jax.models.layers.execution import Execution, is_on


def product_of(execution: Execution | None) -> Callable[..., jax.Array]:
    """The layers' `dot_general`: on CPUs `flat`, else, and where `execution` is None, XLA's."""
    return flat if is_on(execution, "cpu") else jax.lax.dot_general


def flat(x: jax.Array, kernel: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """In place of `jax.lax.dot_general` in a layer, with all but the last axis of `x` as one.

    The gradient of the kernel is then a product of two matrices as they lie in memory. Where the sum is over several
    axes, XLA for CPUs transposes one of the two first, and multiplies two to five times slower.

    Args:
      x: `[..., C]`.
      kernel: `[C, D]`.
      dimensions: as the layer gives them: the last axis of `x`, and the first of `kernel`.
      **options: as the layer gives them.

    Returns:
      `[..., D]`.
    """
    rows = x.reshape(-1, x.shape[-1])
    return jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options).reshape(*x.shape[:-1], -1)


def pointwise(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """A 1x1 convolution as a product of matrices, for which compilers make faster programs."""
    return jax.lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def flat_pointwise(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """`pointwise` for CPUs."""
    return flat(x, kernel[0, 0], (((3,), (0,)), ((), ())))
