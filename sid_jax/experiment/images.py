"""What is asked for to pictures: a sampler over a teacher's networks, as one compiled program."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.errors import UserError
from sid_jax.experiment.networks import networks_of, params_of
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.run.progress import following
from sid_jax.sid import Condition, Frozen, key_of, seed_words
from sid_jax.size import Resolution, size_of
from sid_jax.teachers.conditions import Asked
from sid_jax.teachers.space import as_bytes
from sid_jax.teachers.teacher import Sampler, Teacher

FirstNoise = Callable[[int, int], np.ndarray]
"""(first, last) -> the unit noise of the images first to last - 1, float32 `[n, H, W, C]` of what is diffused."""

_log = logging.getLogger(__name__)


def images_at_a_time(resolution: Resolution) -> int:
    """How many images of a size a device makes at a time."""
    return max(1, 100 * 64**2 // math.prod(size_of(resolution)))


@dataclass(frozen=True, eq=False)
class Made:
    """A batch of images on the devices, which may still be computing them.

    Attributes:
      start: the row of the first one: its place among all that are asked for.
      count: how many of them are asked for; what comes after these only fills the batch up.
      images: uint8 `[B, H, W, 3]`, split over the devices.
      finite: which of them are of finite numbers, bool `[B]`, on all devices.
    """

    start: int
    count: int
    images: jax.Array
    finite: jax.Array

    @property
    def rows(self) -> np.ndarray:
        """The rows of those that are asked for, `[count]`."""
        return np.arange(self.start, self.start + self.count)

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """The images `[count, H, W, 3]` and which are finite `[count]`, on the host.

        Of several processes each has all of them, and all of them call this together.
        """
        return meshes.gathered(self.images)[: self.count], np.asarray(self.finite)[: self.count]


def count_of(batch: Made) -> int:
    """How many images of a batch are asked for."""
    return batch.count


class ImageProgram:
    """Conditions, a denoiser under a sampler, and what makes images of its samples.

    Image i of a seed has noise of its own, so what it looks like depends neither on how many others are made nor on
    how they are batched, nor on how many devices they are made on. Where a mesh has devices of several processes, all
    of them make the same calls.

    Args:
      teacher: with the parameters of its conditions and space; the denoiser's are given at each call.
      sampler: that of a student, or of the teacher.
      resolution: of the images.
      batch: images at a time, rounded up to a multiple of the devices.
      mesh: the devices that share the work, and that all parameters are on; by default one.
      strict: whether a picture that is not finite is an error.
    """

    def __init__(
        self,
        teacher: Teacher,
        sampler: Sampler,
        resolution: Resolution,
        batch: int = 100,
        mesh: jax.sharding.Mesh | None = None,
        strict: bool = True,
    ):
        self.teacher, self.sampler, self._strict = teacher, sampler, strict
        self.mesh = mesh or meshes.make_mesh(devices=jax.local_devices()[:1])
        self.batch = self._whole(batch)
        self._networks = networks_of(teacher, resolution, mesh)
        self._shape = teacher.space.shape(resolution)
        self._frozen = Frozen(
            base=teacher.denoiser.base,
            conditions=params_of(teacher.conditions.parts),
            space=params_of(teacher.space.parts),
        )
        self._empty = meshes.place(teacher.conditions.empty(), meshes.replicated(self.mesh))
        everywhere = meshes.replicated(self.mesh)
        self._compiled = jax.jit(self._by_device, out_shardings=(meshes.batch_sharding(self.mesh), everywhere))

    def __call__(self, params: Any, asked: Asked, seed: int, name: str = "") -> np.ndarray:
        """One image for each that is asked for, uint8 `[N, H, W, 3]`, by a denoiser with these parameters.

        Each process has all of them, on its host. `batches` makes them without ever having all.

        name: what is done, of which progress is shown; empty: none is.

        Raises:
          UserError: a picture is not finite; where the program is not strict, that is a warning, and it is black.
        """
        batches = self.batches(params, asked, seed)
        made = [each.whole() for each in (following(batches, len(asked), name, size=count_of) if name else batches)]
        self.check_finite(np.concatenate([finite for _, finite in made]), asked)
        return np.concatenate([images for images, _ in made])

    def check_finite(self, finite: np.ndarray, asked: Asked) -> None:
        """Checks that pictures `[N]` of what is asked for are finite.

        Raises:
          UserError: one is not; where the program is not strict, that is a warning, and it is black.
        """
        if not finite.all():
            first = asked[int(np.argmin(finite))]
            said = f"{np.sum(~finite)} of {len(finite)} pictures are not finite, first that of {first!r}"
            if self._strict:
                raise UserError(f"{said}: the model's weights, or what they compute, are not finite or too large")
            _log.warning("%s; in their place are black ones", said)

    def batches(
        self, params: Any, asked: Asked, seed: int, noise: FirstNoise | None = None, start: int = 0
    ) -> Iterator[Made]:
        """The same a batch at a time, which the devices have when they have made it: the host does not wait for it.

        Args:
          params: of the denoiser.
          asked: what is asked for, one of it for each image.
          seed: of the noise.
          noise: the unit noise that the samples begin with, in the place of the seed's.
          start: the row of the first image that is made; those before it were made another time.
        """
        words = seed_words(seed)
        batch = min(self.batch, self._whole(len(asked)))
        for first in range(start, len(asked), batch):
            some = [asked[i] for i in range(first, min(first + batch, len(asked)))]
            # The last batch is filled up, so that there is one shape to compile for.
            read = self.teacher.conditions.read(some + some[-1:] * (batch - len(some)))
            read, rows = meshes.place((read, np.arange(first, first + batch)), meshes.batch_sharding(self.mesh))
            given = () if noise is None else (self._given(noise, first, len(some), batch),)
            yield Made(
                first, len(some), *self._compiled(params, self._frozen, (read, self._empty), words, rows, *given)
            )

    def _given(self, noise: FirstNoise, start: int, count: int, batch: int) -> jax.Array:
        """The noise of `count` images from `start` on, filled up to a batch, on the devices."""
        rows = noise(start, start + count)
        filled = np.concatenate([rows, np.repeat(rows[-1:], batch - count, axis=0)])
        return meshes.place(filled, meshes.batch_sharding(self.mesh))

    def _whole(self, images: int) -> int:
        """So many images, or a few more, that each device has as many."""
        return -(-images // self.mesh.size) * self.mesh.size

    def _by_device(self, *arguments: Any) -> tuple[jax.Array, jax.Array]:
        """`_generate`, by each device for its share of the batch, as one alone would, if it has all parameters.

        Where XLA splits a program by itself it may round in other places, which changes a byte of some image.
        """
        if self.mesh.size == 1 or self.mesh.shape["fsdp"] > 1:
            return self._generate(*arguments)
        split, whole = meshes.batch_sharding(self.mesh).spec, meshes.replicated(self.mesh).spec
        specs = (whole, whole, (split, whole), whole, split, split)[: len(arguments)]
        generate = jax.shard_map(self._generate, mesh=self.mesh, in_specs=specs, out_specs=split, check_vma=False)
        return generate(*arguments)

    def _generate(
        self,
        params: Any,
        frozen: Frozen,
        read: tuple[Any, Any],
        words: jax.Array,
        rows: jax.Array,
        given: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key_of(words), rows)

        def noise(k: int | jax.Array) -> jax.Array:
            drawn = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, k), self._shape, jnp.float32))(keys)
            return drawn if given is None else jnp.where(k == 0, given, drawn)

        whole = self._networks.combine(frozen.base, params)

        def denoiser(x_t: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
            return self._networks.denoiser(whole, x_t, t, cond, None)

        condition = Condition(*(self._networks.encode_condition(frozen.conditions, each) for each in read))
        images = self.teacher.space.decode_to_floats(frozen.space, self.sampler.generate(denoiser, noise, condition))
        finite = jnp.isfinite(images).all((1, 2, 3))
        # What is not finite becomes any byte, and not the same one on all devices.
        return jnp.where(finite[:, None, None, None], as_bytes(images), 0), finite
