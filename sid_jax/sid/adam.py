"""Adam with beta1 = 0, which needs no first moment, and the clean-up of gradients before it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

INFINITE = 1e5
"""What an infinite entry of a gradient becomes, with its sign."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AdamState:
    """`count`: updates so far, int32. `moment`: v, the running mean of squared gradients, like the parameters."""

    count: jax.Array
    moment: Any


def adam(learning_rate: float, beta2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, arXiv 1412.6980) with beta1 = 0: half the state of `optax.adam(b1=0)`, the same updates.

    v <- beta2 v + (1 - beta2) g^2;  update = -learning_rate g / (sqrt(v / (1 - beta2^count)) + eps).
    With beta1 = 0 the first moment is g itself and its bias correction is 1.
    """

    def init(params: Any) -> AdamState:
        return AdamState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
        del params
        count = state.count + 1
        moment = optax.tree.update_moment_per_elem_norm(gradients, state.moment, beta2, 2)
        corrected = optax.tree.bias_correction(moment, beta2, count)
        updates = jax.tree.map(lambda g, v: -learning_rate * (g / (jnp.sqrt(v) + eps)), gradients, corrected)
        return updates, AdamState(count, moment)

    return optax.GradientTransformation(init, update)


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
