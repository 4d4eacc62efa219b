"""Prompts to pictures: the networks of a teacher as functions, and a sampler over them as one compiled program."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.runtime.gather import gather_weights
from sid_jax.sid import FewStep, Networks
from sid_jax.teachers import Teacher, encode, tokenise
from sid_jax.teachers.ddim import DDIM


def networks_of(teacher: Teacher, resolution: int, mesh: jax.sharding.Mesh | None = None) -> Networks:
    """The teacher's UNet, text encoders and encoder of images as functions of their parameters, for `sid`.

    Args:
      teacher: its graphs say what the networks compute in; its parameters are not used.
      resolution: of the images, in pixels.
      mesh: over whose `fsdp` axis the UNet's parameters are sharded.
    """

    def unet(params: Any, x_t: jax.Array, t: jax.Array, cond: dict[str, Any]) -> jax.Array:
        return unet_with_bottleneck(params, x_t, t, cond)[0]

    def unet_with_bottleneck(
        params: Any, x_t: jax.Array, t: jax.Array, cond: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array]:
        return gather_weights(nnx.merge(teacher.unet.graphdef, params), mesh).with_bottleneck(x_t, t, **cond)

    def encode_text(params: Any, ids: Any) -> dict[str, Any]:
        return encode(teacher, params, ids, resolution=resolution)

    return Networks(unet, encode_text, unet_with_bottleneck, functools.partial(encode_images, teacher))


def latent_shape(teacher: Teacher, resolution: int) -> tuple[int, int, int]:
    """(H, W, C) of the latents of images of `resolution` x `resolution` pixels.

    Raises:
      UserError: the autoencoder and the UNet can't halve that resolution as often as they do.
    """
    vae, unet = teacher.vae.config, teacher.unet.config
    unit = vae.downscale * 2 ** (len(unet.block_out_channels) - 1)
    if resolution < 1 or resolution % unit:
        raise UserError(f"resolution {resolution} does not suit the teacher: use a multiple of {unit}")
    side = resolution // vae.downscale
    return side, side, vae.latent_channels


class TextToImage:
    """A pipeline of text encoder, UNet under a sampler, and decoder.

    Image i of a seed has noise of its own, so what it looks like depends neither on how many others are made nor on
    how they are batched.

    Args:
      teacher: with the parameters of its text encoders and autoencoder; the UNet's are given at each call.
      sampler: few-step, or DDIM with guidance.
      resolution: of the images, in pixels.
      batch: images at a time.
    """

    def __init__(self, teacher: Teacher, sampler: FewStep | DDIM, resolution: int, batch: int = 100):
        self.teacher, self.sampler, self.batch = teacher, sampler, batch
        self._networks = networks_of(teacher, resolution)
        self._shape = latent_shape(teacher, resolution)
        self._frozen = {
            "text": tuple(component.params for component in teacher.text_encoders),
            "vae": teacher.vae.params,
            "empty": tokenise(teacher, [""]),
        }
        self._compiled = jax.jit(self._generate)

    def __call__(self, unet_params: Any, prompts: Sequence[str], seed: int) -> np.ndarray:
        """One image for each prompt, uint8 `[N, H, W, 3]`."""
        images = []
        for start in range(0, len(prompts), self.batch):
            part = list(prompts[start : start + self.batch])
            # The last batch is filled up, so that there is one shape to compile for.
            tokens = tokenise(self.teacher, part + [""] * (min(self.batch, len(prompts)) - len(part)))
            rows = jnp.arange(start, start + len(tokens[0]))
            images.append(np.asarray(self._compiled(unet_params, self._frozen, tokens, seed, rows))[: len(part)])
        return np.concatenate(images)

    def _generate(self, unet_params: Any, frozen: dict[str, Any], tokens: Any, seed: jax.Array, rows: jax.Array):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), rows)

        def noise(k: int | jax.Array) -> jax.Array:
            return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, k), self._shape))(keys)

        network = functools.partial(self._networks.unet, unet_params)
        cond = self._networks.encode(frozen["text"], tokens)
        if isinstance(self.sampler, DDIM):
            empty = self._networks.encode(frozen["text"], frozen["empty"])
            latents = self.sampler.generate(network, noise, cond, empty)
        else:
            latents = self.sampler.generate(network, noise, cond)
        return decode(self.teacher, frozen["vae"], latents)


def encode_images(teacher: Teacher, vae_params: Any, images: jax.Array) -> jax.Array:
    """Images uint8 `[B, H, W, 3]` -> latents `[B, h, w, C]` as the UNet sees them: the mean of what the autoencoder
    says of each, which a cache can hold and a sample would not be. Latents, in floating point, come back as they are.
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    vae = nnx.merge(teacher.vae.graphdef, vae_params)
    return vae.encode(images / 127.5 - 1)[0] * teacher.vae.config.scaling_factor


def decode(teacher: Teacher, vae_params: Any, latents: jax.Array) -> jax.Array:
    """Latents `[B, h, w, C]` as the UNet sees them -> images uint8 `[B, H, W, 3]`."""
    vae = nnx.merge(teacher.vae.graphdef, vae_params)
    images = vae.decode(latents.astype(jnp.float32) / teacher.vae.config.scaling_factor)
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)
