"""Batches of images from the host to the devices: filled up, so that few programs are compiled, and changed by PIL."""

import jax
import numpy as np

from sid_jax.evaluation.batch import Change
from sid_jax.evaluation.transforms import in_threads
from sid_jax.runtime.devices import mesh as meshes


class Feed:
    """Brings batches of images to the devices, each process its own images.

    A batch on the host that is smaller than one before of images of the same size is filled up to it, so that the last
    one of a set needs no program of its own.

    Args:
      mesh: the devices; all their processes call this.
      change: of the bytes of an image on the host; None: the network sees them as they are.
    """

    def __init__(self, mesh: jax.sharding.Mesh, change: Change | None = None) -> None:
        self._mesh, self._change = mesh, change
        self._largest: dict[tuple[int, ...], int] = {}

    def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
        """The images, changed and split over the devices.

        Args:
          images: uint8 `[B, H, W, 3]`: on the host, where every process has all of them; or on the devices, split as
            `mesh.batch_sharding` splits a batch.

        Returns:
          uint8 `[B', h, w, 3]`, of which the first B are the images and the others are filled in.
        """
        if isinstance(images, jax.Array):
            if self._change is None:
                return images
            local, size = meshes.local_part(images), len(images)
        else:
            size = self._filled(images)
            local = images[np.minimum(meshes.local_rows(size, self._mesh), len(images) - 1)]
        if self._change is not None:
            local = np.stack(in_threads(self._change, local))
        placed: jax.Array = meshes.place_batch(local, size, self._mesh)
        return placed

    def _filled(self, images: np.ndarray) -> int:
        """How many there are when the batch is as large as the largest before, and split evenly by the devices."""
        devices, shape = self._mesh.size, images.shape[1:]
        largest = max(self._largest.get(shape, 0), -(-len(images) // devices) * devices)
        self._largest[shape] = largest
        return largest
