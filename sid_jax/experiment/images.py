"""Prompts to pictures: the networks of a teacher as functions, and a sampler over them as one compiled program."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sid_jax.experiment.condition_cache import Text, text_of
from sid_jax.experiment.networks import decode, latent_shape, networks_of
from sid_jax.families.stable_diffusion import Teacher
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.sid import FewStep
from sid_jax.teachers.samplers.ddim import DDIM


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
