"""Networks in folders of transformers that look at images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sid_jax.formats.network_folder import locate_network, open_network_weights
from sid_jax.teachers import Component, build, open_component


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


def described(place: str, class_name: str, published: Mapping[str, Mapping[str, Any]], **options: Any) -> Component:
    """The network of a place, its parameters abstract, and no files to read them from: nothing but texts is fetched.

    Args:
      place: see `network_folder.locate_network`.
      class_name: a name in `models.NETWORK_TYPES`.
      published: configurations by hub id, which needn't be fetched.
      **options: of its module.

    Raises:
      UserError: there is no such place, or it has another network.
    """
    if place in published and not Path(place).exists():
        return build(class_name, dict(published[place]), where=place, **options)
    return open_component(locate_network(place, weights=False), class_name, **options)


def normalised(pixels: jax.Array, mean: Any, std: Any) -> jax.Array:
    """Pixels in 0..255, `[B, H, W, 3]`, less the mean of each channel and divided by its deviation, of 0..1."""
    return (pixels / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
