"""Prompts to pictures: the networks of a teacher as functions, and a sampler over them as one compiled program."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.runtime import mesh as meshes
from sid_jax.runtime.gather import gather_weights
from sid_jax.sid import FewStep, Networks
from sid_jax.teachers import Teacher
from sid_jax.teachers.ddim import DDIM
from sid_jax.text import Text, text_of


def networks_of(
    teacher: Teacher, resolution: int, mesh: jax.sharding.Mesh | None = None, text: Text | None = None
) -> Networks:
    """The teacher's UNet, its text and its encoder of images as functions of their parameters, for `sid`.

    Args:
      teacher: its graphs say what the networks compute in; its parameters are not used.
      resolution: of the images, in pixels.
      mesh: over whose `fsdp` axis the UNet's parameters are sharded.
      text: how prompts become conditions; by default by the teacher's text encoders.
    """

    def unet(params: Any, x_t: jax.Array, t: jax.Array, cond: dict[str, Any]) -> jax.Array:
        return unet_with_bottleneck(params, x_t, t, cond)[0]

    def unet_with_bottleneck(
        params: Any, x_t: jax.Array, t: jax.Array, cond: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array]:
        return gather_weights(nnx.merge(teacher.unet.graphdef, params), mesh).with_bottleneck(x_t, t, **cond)

    encode_text = (text or text_of(teacher, resolution)).encode
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
    how they are batched, nor on how many devices they are made on. Where a mesh has devices of several processes, all
    of them make the same calls, and each has all the images.

    Args:
      teacher: with the parameters of its autoencoder; the UNet's are given at each call.
      sampler: few-step, or DDIM with guidance.
      resolution: of the images, in pixels.
      batch: images at a time, rounded up to a multiple of the devices.
      text: how prompts become conditions; by default by the teacher's text encoders, with the parameters there.
      mesh: the devices that share the work, and that all parameters are on; by default one.
    """

    def __init__(
        self,
        teacher: Teacher,
        sampler: FewStep | DDIM,
        resolution: int,
        batch: int = 100,
        text: Text | None = None,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.teacher, self.sampler = teacher, sampler
        self._mesh = mesh or meshes.make_mesh(devices=jax.local_devices()[:1])
        self.batch = self._whole(batch)
        self._text = text or text_of(teacher, resolution)
        self._networks = networks_of(teacher, resolution, mesh, self._text)
        self._shape = latent_shape(teacher, resolution)
        self._frozen = {
            "text": self._text.params,
            "vae": teacher.vae.params,
            "empty": meshes.place(self._text.read([""]), meshes.replicated(self._mesh)),
        }
        self._compiled = jax.jit(self._generate, out_shardings=meshes.replicated(self._mesh))

    def __call__(self, unet_params: Any, prompts: Sequence[str], seed: int) -> np.ndarray:
        """One image for each prompt, uint8 `[N, H, W, 3]`."""
        images = []
        batch = min(self.batch, self._whole(len(prompts)))
        for start in range(0, len(prompts), batch):
            part = list(prompts[start : start + batch])
            # The last batch is filled up, so that there is one shape to compile for.
            tokens = self._text.read(part + [""] * (batch - len(part)))
            tokens, rows = meshes.place((tokens, np.arange(start, start + batch)), meshes.batch_sharding(self._mesh))
            images.append(np.asarray(self._compiled(unet_params, self._frozen, tokens, seed, rows))[: len(part)])
        return np.concatenate(images)

    def _whole(self, images: int) -> int:
        """So many images, or a few more, that each device has as many."""
        return -(-images // self._mesh.size) * self._mesh.size

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
