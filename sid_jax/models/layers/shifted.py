"""3x3 convolutions for CPUs, with the kernel's gradient as nine products of matrices, one for each shift of the image.

XLA computes this gradient as a convolution with a kernel as large as the image, which takes a CPU longer.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`[B, H, W, C]` and `[3, 3, C, D]` -> `[B, ceil(H / stride), ceil(W / stride), D]`, with zeros beyond the border.

    The output and the input's gradient are XLA's.
    """
    return _convolved(x, kernel, stride)


def _convolved(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout)


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolved(x, kernel, stride), (x, kernel)


def _backward(stride: int, kept: tuple[jax.Array, jax.Array], of_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    (of_x,) = jax.linear_transpose(lambda x: _convolved(x, kernel, stride), x)(of_out)
    batch, height, width, channels = of_out.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    flat = of_out.reshape(-1, channels)
    size = (batch, stride * (height - 1) + 1, stride * (width - 1) + 1, x.shape[3])

    def product(shift: jax.Array) -> jax.Array:
        seen = jax.lax.dynamic_slice(padded, (0, shift[0], shift[1], 0), size)[:, ::stride, ::stride]
        return seen.reshape(-1, x.shape[3]).T @ flat

    # A loop: nine products in a row would take longer to compile than what they belong to.
    products = jax.lax.map(product, np.array(list(itertools.product(range(3), range(3))), np.int32))
    return of_x, products.reshape(kernel.shape)


conv3x3.defvjp(_forward, _backward)
