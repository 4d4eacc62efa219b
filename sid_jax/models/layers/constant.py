"""Leaves of a network that are part of its file but are neither trained nor averaged."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Constant(nnx.Variable[jax.Array]):
    """A resample filter, a position buffer, the frequencies of a Fourier embedding.

    It is no `nnx.Param`, so that `nnx.split(module, nnx.Param, Constant)` gives what is trained and what is not.

    Args:
      value: the array.
      expected: what `expected_bytes` returns for the value that a file must hold; None where only the file knows it. It
        is metadata, which graphs are compared by: keep it small.
      tolerance: relative error that a file's value may have.
      **metadata: further metadata of `nnx.Variable`.
    """

    expected: bytes | None
    tolerance: float

    def __init__(
        self, value: jax.Array, *, expected: bytes | None = None, tolerance: float = 1e-5, **metadata: Any
    ) -> None:
        super().__init__(value, expected=expected, tolerance=tolerance, **metadata)


def known_constant(value: np.ndarray, *, tolerance: float = 1e-5) -> Constant:
    """A float32 `Constant` whose value the configuration determines, so that a file can be held to it.

    Args:
      value: the array.
      tolerance: relative error of a file's values, where they were computed in float32 in many steps.
    """
    return Constant(jnp.asarray(value, jnp.float32), expected=expected_bytes(value), tolerance=tolerance)


def expected_bytes(value: np.ndarray) -> bytes:
    """The values of an array in C order, as little-endian float32."""
    return np.asarray(value, "<f4").tobytes()
