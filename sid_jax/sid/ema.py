"""The moving average of the generator (section 5, C; the ramp-up is that of EDM, arXiv 2206.00364)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def ema_beta(half_life: float, ramp_up: float | None, images_seen: jax.Array, batch: int) -> jax.Array:
    """beta = 0.5^(batch / h_now), h_now = min(half_life, ramp_up * images_seen): a float32 scalar in [0, 1).

    Args:
      half_life: h, in images.
      ramp_up: r, the share of the images seen that the half-life may reach; None means no ramp-up.
      images_seen: generated images that the generator was trained on before this update. At 0, beta is 0.
      batch: images in this update.
    """
    half_life_now = jnp.float32(half_life)
    if ramp_up is not None:
        half_life_now = jnp.minimum(half_life_now, ramp_up * jnp.asarray(images_seen, jnp.float32))
    return 0.5 ** (batch / jnp.maximum(half_life_now, 1e-8))


def ema_update(ema: Any, params: Any, beta: jax.Array) -> Any:
    """G_ema <- beta G_ema + (1 - beta) G_theta, leaf by leaf, in float32."""
    return optax.incremental_update(params, ema, 1 - beta)
