"""A batch of images that is measured, where it is wanted: on the devices, or this process' part of it on the host."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils

from sid_jax.evaluation.transforms import threads
from sid_jax.runtime.devices import mesh as meshes

Change = Callable[[np.ndarray], np.ndarray]
"""What is done to the bytes of one image on the host, uint8 `[H, W, 3]` -> `[h, w, 3]`."""


class Batch:
    """Images of consecutive rows, filled up so that each batch of a measurement has as many.

    Args:
      start: the row of the first.
      count: how many are to be measured; what comes after them only fills up.
      mesh: the devices.
      devices: all images, uint8 `[B, H, W, 3]`, split over the devices; None: they are on the hosts.
      host: this process' images, uint8 `[H, W, 3]` each, in the order of `local_rows`, as they become ready; None: they
        are on the devices.
      size: B; None: as the devices have it.
      check: raises UserError where an image is none that can be measured.
    """

    def __init__(
        self,
        start: int,
        count: int,
        mesh: jax.sharding.Mesh,
        *,
        devices: jax.Array | None = None,
        host: Iterable[np.ndarray] | None = None,
        size: int | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self.start, self.count, self.mesh, self.check = start, count, mesh, check
        self._devices, self._host = devices, host
        if size is None:
            assert devices is not None, "a batch that the devices do not have says its size"
            size = len(devices)
        self.size = size

    @property
    def rows(self) -> np.ndarray:
        """The rows that are to be measured, `[count]`."""
        return np.arange(self.start, self.start + self.count)

    def on_host(self) -> list[np.ndarray]:
        """This process' images; the devices may still have to make them."""
        if self._host is None:
            assert self._devices is not None, "a batch has its images somewhere"
            self._host = meshes.local_part(self._devices)
        if not isinstance(self._host, list):
            self._host = list(self._host)
        return self._host

    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths of the images, each once; all processes call this together."""
        if self._devices is not None:
            height, width = self._devices.shape[1:3]
            return [(height, width)]
        own = [image.shape[:2] for image in self.on_host()]
        if jax.process_count() > 1:  # the least and the largest are enough to know whether there is more than one
            own = multihost_utils.process_allgather(np.array([min(own), max(own)])).reshape(-1, 2).tolist()
        return list(dict.fromkeys((height, width) for height, width in own))

    def on_devices(self) -> jax.Array:
        """All images, which are of one size."""
        if self._devices is None:
            self._devices = meshes.place_batch(np.stack(self.on_host()), self.size, self.mesh)
        return self._devices

    def local(self) -> list[tuple[int, np.ndarray]]:
        """The row and the image of each that is to be measured, and is this process'."""
        places = meshes.local_rows(self.size, self.mesh)
        pairs = zip(places.tolist(), self.on_host(), strict=True)
        return [(self.start + place, image) for place, image in pairs if place < self.count]

    def changed(self, change: Change) -> "Batch":
        """The same rows, each image changed on the host."""
        host = threads().map(change, self.on_host())
        return Batch(self.start, self.count, self.mesh, host=host, size=self.size)
