"""What the constructor of every layer is told beside its shape."""

from typing import Required, TypedDict

import jax
from flax import nnx


class LayerOptions(TypedDict, total=False):
    """The keywords `**layer` that a network hands down to all of its layers.

    Attributes:
      dtype: type of the computation; None, or absent: that of the parameters and inputs.
      param_dtype: type that parameters are stored in; absent: float32.
      rngs: for initial parameters.
    """

    dtype: jax.typing.DTypeLike | None
    param_dtype: jax.typing.DTypeLike
    rngs: Required[nnx.Rngs]
