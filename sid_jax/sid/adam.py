"""Adam, which at beta1 = 0 needs no first moment; the clean-up of gradients before it; the warm-up of its rate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

INFINITE = 1e5
"""What an infinite entry of a gradient becomes, with its sign."""


def adam(beta1: float = 0.0, beta2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, arXiv 1412.6980) but for the learning rate, by optax.

    v <- beta2 v + (1 - beta2) g^2;  scaled = g / (sqrt(v / (1 - beta2^count)) + eps).
    At beta1 = 0 the first moment is g itself and its bias correction is 1, so that only v is stored: that is RMSprop
    with the bias correction of Adam.

    Returns:
      A transformation whose state has `count`, updates so far, and `nu`, which is v; at beta1 > 0 `mu` too.
    """
    if beta1 > 0:
        return optax.scale_by_adam(b1=beta1, b2=beta2, eps=eps)
    return optax.scale_by_rms(decay=beta2, eps=eps, eps_in_sqrt=False, bias_correction=True)


def sanitize(gradients: Any) -> tuple[Any, jax.Array]:
    """Gradients without NaN (now 0) and +-inf (now +-1e5), and how many entries those were, a float32 scalar.

    An entry whose square overflows float32, and with it Adam's moment for good, is counted and treated as infinite.
    """
    largest = float(np.finfo(np.float32).max) ** 0.5

    def clean(g: jax.Array) -> jax.Array:
        return jnp.where(jnp.abs(g) < largest, g, jnp.where(jnp.isnan(g), 0, jnp.sign(g) * INFINITE))

    bad = (jnp.sum(~(jnp.abs(g) < largest), dtype=jnp.float32) for g in jax.tree.leaves(gradients))
    return jax.tree.map(clean, gradients), sum(bad, jnp.float32(0))


def clip(gradients: Any, value: float | None) -> Any:
    """Every entry of the gradients limited to +-value; None leaves them as they are."""
    if value is None:
        return gradients
    return jax.tree.map(lambda g: jnp.clip(g, -value, value), gradients)


def clip_norm(gradients: Any, largest: float | None) -> Any:
    """The gradients times min(1, largest / their norm), the norm over all tensors; None leaves them as they are."""
    if largest is None:
        return gradients
    clipped, _ = optax.clip_by_global_norm(largest).update(gradients, optax.EmptyState())
    return clipped


def warmed_up(learning_rate: float, updates: float, count: jax.Array) -> float | jax.Array:
    """The learning rate of a network's update number `count`, counted from 1: learning_rate min(1, count / updates).

    Args:
      learning_rate: that of after the warm-up.
      updates: that the warm-up takes, not always a whole number; 0: there is none.
      count: an int32 scalar, as Adam's state has it after the update.
    """
    return optax.linear_schedule(0.0, learning_rate, updates)(count) if updates else learning_rate
