"""The one entrance to attention, and which implementation is behind it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.models.layers.attention.blocked import blocked
from sid_jax.models.layers.attention.chunked import CHUNK, chunked
from sid_jax.models.layers.attention.kernels import AttentionError, cudnn, cudnn_obstacle, splash, splash_obstacle
from sid_jax.models.layers.attention.plain import plain
from sid_jax.models.layers.execution import Execution


class _Kernel(NamedTuple):
    """The kernel of a platform: its name in `ATTENTION`, and what says why it can't run lengths, heads and a type."""

    name: str
    obstacle: Callable[[int, int, int, np.dtype], str | None]


_KERNELS: dict[str | None, _Kernel] = {
    "gpu": _Kernel("cudnn", cudnn_obstacle),
    "tpu": _Kernel("splash", splash_obstacle),
}
_FUNCTIONS: dict[str, Callable[..., jax.Array]] = {
    "xla": plain, "chunked": chunked, "blocked": blocked, "cudnn": cudnn, "splash": splash,
}  # fmt: skip
_LARGE = 4 * CHUNK  # positions from which plain attention's logits cost more than computing them twice
_SMALL = 2**15  # logits of all heads of all samples, up to which a CPU computes plain attention as fast


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    causal: bool = False,
    execution: Execution | None = None,
) -> jax.Array:
    """softmax(query key^T / sqrt(D)) value, for each head.

    Queries and keys are multiplied with float32 sums whatever their type, and the softmax is in float32, in every
    implementation: diffusers' `upcast_attention`, which is there for float16 sums, has nothing to add.

    Args:
      query: `[B, Lq, heads, D]`.
      key: `[B, Lk, heads, D]`.
      value: `[B, Lk, heads, D]`.
      causal: position i sees the positions up to i only.
      execution: None: plain, of any length.

    Returns:
      `[B, Lq, heads, D]`, in the type of `value`.

    Raises:
      AttentionError: `execution.attention` names an implementation that can't run this shape or type.
    """
    function: Callable[..., jax.Array] = functools.partial(plain, causal=causal)
    if execution is not None and not causal:
        chosen = choose(execution, query.shape, key.shape[1], query.dtype)
        function = _FUNCTIONS[chosen]
        if chosen not in ("xla", "chunked"):
            function = functools.partial(execution.by_device, function)
    return _as_precisely(function, query.dtype)(query, key, value)


def _as_precisely(function: Callable[..., jax.Array], dtype: np.dtype) -> Callable[..., jax.Array]:
    """The function, whose backward pass multiplies as precisely as its forward one.

    JAX traces the backward pass of a `custom_vjp` when the context of `jax.default_matmul_precision` is over. Products
    of smaller types than float32 are exact at any precision, and splash compiles for them only with the default one.
    """
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if precision is None:
        return function
    if dtype != jnp.float32:
        precision = "default"

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with jax.default_matmul_precision(precision):
                return function(*arguments)

        return call

    alike = jax.custom_vjp(within(function))
    alike.defvjp(within(lambda *arrays: jax.vjp(function, *arrays)), within(lambda pull, of_out: pull(of_out)))
    return alike


def choose(execution: Execution, shape: tuple[int, ...], key_length: int, dtype: jax.typing.DTypeLike) -> str:
    """The implementation that `attend` uses.

    Args:
      execution: what is asked for, and on which platform.
      shape: (B, Lq, heads, D) of the queries.
      key_length: Lk, of the keys.
      dtype: of the queries.

    Returns:
      A name of `ATTENTION` other than "auto".

    Raises:
      AttentionError: `execution.attention` names an implementation that can't run this shape or type.
    """
    batch, length, heads, head_size = shape
    if execution.platform == "cpu" and execution.attention == "auto":
        return "blocked" if batch * heads * length * key_length > _SMALL else "xla"
    if min(length, key_length) < execution.long_attention:
        return "xla"
    kernel = _KERNELS.get(execution.platform)
    obstacle = kernel.obstacle(length, key_length, head_size, jnp.dtype(dtype)) if kernel else None
    if execution.attention == "auto":
        if kernel and not obstacle:
            return kernel.name
        return "chunked" if min(length, key_length) >= _LARGE else "xla"
    if kernel and execution.attention == kernel.name and obstacle:
        raise AttentionError(f"attention.implementation: {kernel.name!r} {obstacle}; use 'auto'")
    return execution.attention
