"""Training the autoencoder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.digits.fit import Schedule, fit
from sid_jax.digits.networks import initial
from sid_jax.teachers import Component, build


def train_autoencoder(
    vae: Component, images: np.ndarray, *, kl_weight: float, seed: int, **options: Any
) -> tuple[Component, np.ndarray]:
    """The autoencoder with parameters, and with the scaling factor that they call for; and the latents of the images.

    The loss is the squared error, averaged over pixels, plus `kl_weight` times the Kullback-Leibler divergence of the
    latents to the standard normal, averaged over latent elements. The scaling factor gives the latents that a
    diffusion model sees unit variance (Rombach et al. 2022, appendix G).

    Args:
      vae: its graph, whose scaling factor is 1.
      images: `[N, H, W, C]` in [-1, 1].
      kl_weight: 0 or more.
      seed: of the initial parameters and all draws.
      **options: those of `fit.Schedule`.

    Returns:
      The autoencoder; and means of the latents, times the scaling factor, `[N, h, w, c]`.
    """

    def loss(params: Any, key: jax.Array, batch: Any) -> jax.Array:
        model = nnx.merge(vae.graphdef, params)
        mean, log_variance = model.encode(batch)
        latents = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, jnp.float32)
        error = jnp.square(model.decode(latents) - batch).mean()
        divergence = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).mean()
        return error + kl_weight * divergence

    params = fit("autoencoder", loss, initial(vae, seed), jnp.asarray(images), Schedule(**options), seed=seed)
    means = _encode(vae.with_params(params), images)
    factor = float(1 / means.std())
    scaled = build(vae.class_name, {**vae.config_json, "scaling_factor": factor})
    return scaled.with_params(params), means * factor


def _encode(vae: Component, images: np.ndarray, batch: int = 500) -> np.ndarray:
    means = jax.jit(lambda params, x: nnx.merge(vae.graphdef, params).encode(x)[0])
    return np.concatenate([means(vae.params, images[i : i + batch]) for i in range(0, len(images), batch)])
