"""Training the UNet and the text encoder, together, on latents and prompts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.digits.fit import Schedule, fit
from sid_jax.digits.networks import initial
from sid_jax.sid import MOST_SEED, VP
from sid_jax.teachers import Component


class Pairs(NamedTuple):
    """Latents and the prompts that describe them.

    latents: `[N, H, W, C]`, of about unit variance.
    labels: class of each latent, `[N]` int32.
    prompts: tokens of the wordings of each class, `[classes, wordings, L]` int32.
    empty: tokens of the empty prompt, `[L]` int32.
    """

    latents: np.ndarray
    labels: np.ndarray
    prompts: np.ndarray
    empty: np.ndarray


def train_diffusion(
    unet: Component, text: Component, process: VP, pairs: Pairs, *, prompt_dropout: float, seed: int, **options: Any
) -> tuple[Component, Component]:
    """The UNet and the text encoder with parameters that predict the noise in noisy latents.

    The loss is the mean square error at uniform times (Ho et al. 2020, arXiv 2006.11239); with probability
    `prompt_dropout` a prompt is replaced by the empty one, which guidance needs (Ho and Salimans 2022, arXiv
    2207.12598). `process` predicts eps. `options` are those of `fit.Schedule`.
    """
    prompts, empty = jnp.asarray(pairs.prompts), jnp.asarray(pairs.empty)
    times = len(process.alphas_cumprod)

    def loss(params: Any, key: jax.Array, batch: Any) -> jax.Array:
        latents, labels = batch
        keys = jax.random.split(key, 4)
        t = jax.random.randint(keys[0], labels.shape, 0, times, jnp.int32)
        noise = jax.random.normal(keys[1], latents.shape, jnp.float32)
        tokens = prompts[labels, jax.random.randint(keys[2], labels.shape, 0, prompts.shape[1], jnp.int32)]
        tokens = jnp.where(jax.random.bernoulli(keys[3], jnp.float32(prompt_dropout), (len(labels), 1)), empty, tokens)
        context = nnx.merge(text.graphdef, params["text"])(tokens).last_hidden_state
        network = nnx.merge(unet.graphdef, params["unet"])
        output = network(process.corrupt(latents, t, noise), t, encoder_hidden_states=context)
        return jnp.mean(jnp.square(output - process.fake_target(latents, t, noise)))

    params = {"unet": initial(unet, seed), "text": initial(text, (seed + 1) % (MOST_SEED + 1))}
    data = (jnp.asarray(pairs.latents), jnp.asarray(pairs.labels))
    params = fit("diffusion", loss, params, data, Schedule(**options), seed=seed)
    return unet.with_params(params["unet"]), text.with_params(params["text"])
