"""Between images and what is diffused: an autoencoder's latents, or the pixels themselves."""

import dataclasses
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.size import Resolution, Size, size_of
from sid_jax.teachers.component import Component, WithoutNetworks


class Space(Protocol):
    """Where a teacher diffuses.

    parts: the networks it takes, whose parameters are the `params` of its methods.
    resolution: of the images that the teacher was made for, in pixels.
    """

    @property
    def parts(self) -> tuple[Component, ...]: ...

    @property
    def resolution(self) -> int: ...

    def with_parts(self, parts: tuple[Component, ...]) -> Self:
        """The same with other networks, or the same networks with parameters."""
        ...

    def shape(self, resolution: Resolution) -> tuple[int, int, int]:
        """(H, W, C) of what is diffused for images of that size. UserError if it can't be."""
        ...

    def encode_images(self, params: tuple[Any, ...], images: jax.Array) -> jax.Array:
        """Images uint8 `[B, H, W, 3]` -> what is diffused, `[B, h, w, C]`. Floats are that already."""
        ...

    def decode(self, params: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """What is diffused, `[B, h, w, C]` -> images uint8 `[B, H, W, 3]`."""
        ...

    def decode_to_floats(self, params: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """The same before `as_bytes`: float32, in [-1, 1] but for what that cuts, and finite or not."""
        ...

    def digest(self) -> str:
        """What identifies what `encode_images` makes."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class LatentSpace:
    """The latents of an autoencoder.

    Attributes:
      vae: an AutoencoderKL.
      multiple: what the side of the latents must be a multiple of, as the denoiser halves it several times.
      side: that of the latents that the denoiser was trained on.
    """

    vae: Component
    multiple: int
    side: int

    @property
    def parts(self) -> tuple[Component, ...]:
        """The autoencoder."""
        return (self.vae,)

    @property
    def resolution(self) -> int:
        """In pixels."""
        return self.side * self.vae.config.downscale

    def with_parts(self, parts: tuple[Component, ...]) -> Self:
        """The same with another autoencoder."""
        (vae,) = parts
        return dataclasses.replace(self, vae=vae)

    def shape(self, resolution: Resolution) -> tuple[int, int, int]:
        """(H, W, C) of the latents.

        Raises:
          UserError: it is no size, or the autoencoder and the denoiser can't halve a side as often as they do.
        """
        config = self.vae.config
        unit = config.downscale * self.multiple
        height, width = size = _size_of(resolution)
        if height % unit or width % unit:
            sides = "a multiple" if height == width else "multiples"
            raise UserError(f"resolution {size} does not suit the teacher: use {sides} of {unit}")
        return height // config.downscale, width // config.downscale, config.latent_channels

    def encode_images(self, params: tuple[Any, ...], images: jax.Array) -> jax.Array:
        """The mean of what the autoencoder says of each image, which a cache can hold and a sample would not be."""
        if jnp.issubdtype(images.dtype, jnp.floating):
            return images
        return self._network(params).encode(images / 127.5 - 1)[0] * self.vae.config.scaling_factor

    def decode(self, params: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """Latents as the denoiser sees them -> images uint8."""
        return as_bytes(self.decode_to_floats(params, x))

    def decode_to_floats(self, params: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """The same before `as_bytes`."""
        images: jax.Array = self._network(params).decode(x.astype(jnp.float32) / self.vae.config.scaling_factor)
        return images

    def digest(self) -> str:
        """That of the autoencoder's files."""
        return self.vae.digest()

    def _network(self, params: tuple[Any, ...]) -> Any:
        return nnx.merge(self.vae.graphdef, params[0], self.vae.constants)


@dataclasses.dataclass(frozen=True, eq=False)
class PixelSpace(WithoutNetworks):
    """Square images of one size, in [-1, 1].

    Attributes:
      resolution: their side in pixels.
      channels: 3, or 1 for grey images, of which pictures are made by repeating the channel.
    """

    resolution: int
    channels: int = 3

    def shape(self, resolution: Resolution) -> tuple[int, int, int]:
        """(H, W, C). Raises UserError for another resolution than the teacher's."""
        size = _size_of(resolution)
        if size != (self.resolution, self.resolution):
            square = "" if size.height == size.width else "square "
            raise UserError(
                f"resolution {size} does not suit the teacher: it makes {square}images of {self.resolution} px"
            )
        return *size, self.channels

    def encode_images(self, params: tuple[Any, ...], images: jax.Array) -> jax.Array:
        """Bytes to [-1, 1]."""
        del params
        if jnp.issubdtype(images.dtype, jnp.floating):
            return images
        return (images / 127.5 - 1)[..., : self.channels]

    def decode(self, params: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """[-1, 1] to bytes; what is beyond is cut."""
        return as_bytes(self.decode_to_floats(params, x))

    def decode_to_floats(self, params: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """They are images; one channel becomes three."""
        del params
        return jnp.repeat(x, 3, axis=-1) if self.channels == 1 else x

    def digest(self) -> str:
        """The same for all pixels."""
        return f"pixels {self.resolution} {self.channels}"


def _size_of(resolution: Resolution) -> Size:
    """`size_of`, of what a user says."""
    try:
        return size_of(resolution)
    except ValueError as error:
        raise UserError(f"resolution {error}") from error


def as_bytes(images: jax.Array) -> jax.Array:
    """Images in [-1, 1] to uint8; what is beyond is cut."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)
