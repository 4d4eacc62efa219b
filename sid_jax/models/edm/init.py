"""Initial values of the layers of networks that are made here."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Initializer = Callable[..., jax.Array]


class Init(NamedTuple):
    """A law of initial values, of the weight and of the bias.

    Attributes:
      law: "xavier_uniform", "kaiming_uniform" or "kaiming_normal".
      weight: what the weight's draws are multiplied by.
      bias: what the bias' draws are multiplied by.
    """

    law: str
    weight: float = 1.0
    bias: float = 0.0

    def kernel_init(self, fan_in: int, fan_out: int) -> Initializer:
        """Of a kernel, whose fans count the positions of a convolution's kernel."""
        return _initializer(self.weight * _spread(self.law, fan_in, fan_out), "uniform" in self.law)

    def bias_init(self, fan_in: int, fan_out: int) -> Initializer:
        """Of the bias that goes with it."""
        return _initializer(self.bias * _spread(self.law, fan_in, fan_out), "uniform" in self.law)


def _spread(law: str, fan_in: int, fan_out: int) -> float:
    squares = {"xavier_uniform": 6 / (fan_in + fan_out), "kaiming_uniform": 3 / fan_in, "kaiming_normal": 1 / fan_in}
    return math.sqrt(squares[law])


def _initializer(spread: float, uniform: bool) -> Initializer:
    def draw(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
        if spread == 0:
            return jnp.zeros(shape, dtype)
        values = (
            jax.random.uniform(key, shape, jnp.float32, -1, 1)
            if uniform
            else jax.random.normal(key, shape, jnp.float32)
        )
        return (spread * values).astype(dtype)

    return draw
