"""The networks of a teacher as functions of their parameters, for `sid`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.experiment.condition_cache import Text, text_of
from sid_jax.families.stable_diffusion import Teacher
from sid_jax.runtime.devices.gather import gather_weights
from sid_jax.sid import Networks


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
