"""Where the images come from that are measured: a generator, or the pictures of a folder."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.data.sources.pictures import Pictures
from sid_jax.errors import UserError
from sid_jax.evaluation.batch import Batch
from sid_jax.evaluation.pictures import read_picture
from sid_jax.evaluation.transforms import threads
from sid_jax.experiment.images import ImageProgram, Made, images_at_a_time
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.size import Resolution
from sid_jax.teachers.conditions import Asked

MOST_AT_A_TIME = 64
"""Images that a device makes or reads, and a feature network looks at, at a time: Inception takes 0.4 GB for them."""
_LEAST_TOGETHER = 16  # that a network looks at: the weights of a large one are sent each time, see `Streamed`


class AtATime(NamedTuple):
    """How many images a device makes at a time to be measured by a protocol, and how many it looks at together."""

    made: int
    together: int


def at_a_time(resolution: Resolution, batch: int = 0) -> AtATime:
    """For images of a size; `batch` is what the user wants of both, 0: it goes by the size."""
    if batch:
        return AtATime(batch, batch)
    made = min(images_at_a_time(resolution), MOST_AT_A_TIME)
    return AtATime(made, made * -(-_LEAST_TOGETHER // made))


class Source(Protocol):
    """Images in rows.

    count: how many.
    asked: what they are of, one of it for each; None: it is not known.
    """

    @property
    def count(self) -> int: ...

    @property
    def asked(self) -> Asked | None: ...

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Those from a row on, in order; all batches have one size."""
        ...


@dataclasses.dataclass
class GeneratedImages:
    """What a generator makes.

    Attributes:
      program: makes the images.
      params: of the denoiser.
      asked: what the images are of.
      seed: of the noise.
      together: how many of a device are measured at a time, if that is more than it makes at a time.
    """

    program: ImageProgram
    params: Any
    asked: Asked
    seed: int
    together: int = 1

    @property
    def count(self) -> int:
        """One for each that is asked for."""
        return len(self.asked)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """As the devices make them: the host has each before it is ready."""
        mesh = self.program.mesh
        made = self.program.batches(self.params, self.asked, self.seed, start=start)
        while (first := next(made, None)) is not None:
            parts = -(-min(self.together * mesh.size, self.count) // len(first.images))
            some = [first, *itertools.islice(made, parts - 1)]
            filled = some + some[-1:] * (parts - len(some))
            images = first.images if parts == 1 else _joined(mesh)(*(each.images for each in filled))
            count = sum(each.count for each in some)
            yield Batch(first.start, count, mesh, devices=images, check=functools.partial(self._check, some))

    def _check(self, some: Sequence[Made]) -> None:
        for made in some:
            finite = np.asarray(made.finite)[: made.count]
            self.program.check_finite(finite, self.asked[made.start : made.start + made.count])


@functools.cache
def _joined(mesh: jax.sharding.Mesh) -> Callable[..., jax.Array]:
    """Batches `[B, ...]` to one, split over the devices as each is."""
    return jax.jit(lambda *batches: jnp.concatenate(batches), out_shardings=meshes.batch_sharding(mesh))


class StoredImages:
    """Pictures in files.

    Args:
      pictures: of which the first are the rows.
      count: how many.
      asked: what they are of; None: it is not known.
      batch: images at a time, rounded up to a multiple of the devices.
      mesh: the devices; of several processes all see the files.
      same_size: whether all must be of one size, as where they are measured as they are.

    Attributes:
      size: (height, width) of the first picture.

    Raises:
      UserError: the first picture can't be read.
    """

    def __init__(
        self,
        pictures: Pictures,
        count: int,
        asked: Asked | None,
        batch: int,
        mesh: jax.sharding.Mesh,
        same_size: bool,
    ):
        self._pictures, self.count, self.asked = pictures, count, asked
        self._mesh, self._same = mesh, same_size
        self._batch = -(-min(batch, count) // mesh.size) * mesh.size
        height, width, _ = read_picture(pictures, 0).shape
        self.size = height, width

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Threads read each while the one before it is measured."""
        places = meshes.local_rows(self._batch, self._mesh)
        for first in range(start, self.count, self._batch):
            rows = np.minimum(first + places, self.count - 1).tolist()
            count = min(self._batch, self.count - first)
            yield Batch(first, count, self._mesh, host=threads().map(self._read, rows), size=self._batch)

    def _read(self, row: int) -> np.ndarray:
        picture = read_picture(self._pictures, row)
        height, width, _ = picture.shape
        if self._same and (height, width) != self.size:
            raise UserError(
                f"{self._pictures.names[row]} has {width} x {height} pixels, and the first picture {self.size[1]} x "
                f"{self.size[0]}: the protocol measures pictures as they are, so they must be of one size"
            )
        return picture


class Timed:
    """A source whose batches come when they are made, and nothing else is done meanwhile: it knows how long that took.

    Args:
      source: of images.

    Attributes:
      seconds: of all batches so far.
    """

    def __init__(self, source: Source):
        self._source, self.seconds = source, 0.0

    @property
    def count(self) -> int:
        """As the source has it."""
        return self._source.count

    @property
    def asked(self) -> Asked | None:
        """As the source has it."""
        return self._source.asked

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Each when it is there."""
        batches = self._source.batches(start)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            jax.block_until_ready(batch.on_devices())
            self.seconds += time.perf_counter() - began
            yield batch


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, each when the one after it has been asked for: devices make one while the other is measured."""
    before = None
    for batch in batches:
        if before is not None:
            yield before
        before = batch
    if before is not None:
        yield before
