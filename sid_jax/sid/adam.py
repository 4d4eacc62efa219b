"""Adam, which at beta1 = 0 needs no first moment, and the clean-up of gradients before it."""

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
