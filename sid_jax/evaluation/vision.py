"""Networks that look at images which PIL has made smaller on the hosts, on all devices of a mesh."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.evaluation.transforms import in_threads
from sid_jax.formats.network_folder import open_network_weights
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.teachers import Component, open_component


def network_in(folder: Path, class_name: str, **options: Any) -> Component:
    """The network in a folder that `save_pretrained` of transformers wrote, its parameters abstract.

    Args:
      folder: see `network_folder.locate_network`.
      class_name: a name in `models.NETWORK_TYPES`.
      **options: of its module.

    Raises:
      UserError: its config.json is missing, or is that of another network.
    """
    component = open_component(folder, class_name, **options)
    return dataclasses.replace(component, open_weights=lambda: open_network_weights(folder))


def onto(component: Component, mesh: jax.sharding.Mesh) -> Component:
    """The network with its parameters in float32 on the devices, read from its files one tensor at a time.

    Raises:
      UserError: a file is missing or damaged, or is of another network.
    """
    return component.load(jnp.float32, meshes.into_shards(mesh, jnp.float32))


class Feed:
    """Batches of images to the devices, each process changing its own images.

    A batch on the host that is smaller than one before is filled up to it, so that the last one of a set needs no
    program of its own.

    Args:
      change: of one image on the host, uint8 `[H, W, 3]` -> `[h, w, 3]`.
      mesh: the devices; all their processes call this.
    """

    def __init__(self, change: Callable[[np.ndarray], np.ndarray], mesh: jax.sharding.Mesh) -> None:
        self._change, self._mesh, self._largest = change, mesh, 0

    def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
        """The changed images, split over the devices.

        Args:
          images: uint8 `[B, H, W, 3]`: on the host, where every process has all of them; or on the devices, split as
            `mesh.batch_sharding` splits a batch.

        Returns:
          uint8 `[B', h, w, 3]`, of which the first B are the images and the others are filled in.
        """
        if isinstance(images, jax.Array) and not images.is_fully_addressable:
            local, size = meshes.local_part(images), len(images)
        else:
            devices = self._mesh.size
            self._largest = size = max(self._largest, -(-len(images) // devices) * devices)
            rows = np.minimum(meshes.local_rows(size, self._mesh), len(images) - 1)
            local = np.asarray(images)[rows]
        placed: jax.Array = meshes.place_batch(np.stack(in_threads(self._change, local)), size, self._mesh)
        return placed


def normalised(pixels: jax.Array, mean: Any, std: Any) -> jax.Array:
    """Pixels in 0..255, `[B, H, W, 3]`, less the mean of each channel and divided by its deviation, of 0..1."""
    return (pixels / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
