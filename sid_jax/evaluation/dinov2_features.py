"""Images to DINOv2's features, whose Frechet distance is FD-DINOv2 (Stein et al. 2023, dgm-eval; EDM2)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.evaluation.feed import Feed
from sid_jax.evaluation.streamed import Streamed, on_host
from sid_jax.evaluation.transforms import bicubic
from sid_jax.evaluation.vision import described, network_in, normalised
from sid_jax.formats.network_folder import locate_network
from sid_jax.teachers import Component

NETWORK = "facebook/dinov2-large"
"""ViT-L/14 without registers, `dinov2_vitl14` of torch.hub, in transformers' format: 1.2 GB."""
_LARGE = {
    "model_type": "dinov2", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518,
    "patch_size": 14,
}  # fmt: skip
SIDE, WIDTH = 224, 1024
"""Pixels of its input, and numbers of a feature."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet."""


class Dinov2Features:
    """Class tokens after the last layer norm, in float32, each image on one device of a mesh.

    The whole image becomes 224 x 224 bytes by PIL's bicubic, without a crop.

    Args:
      place: a folder in transformers' format or a hub id; empty: `NETWORK`.
      mesh: the devices; all their processes call this.
      hub_positions: see `Dinov2Model`; published values are of True.

    Raises:
      UserError: the network can't be had, is damaged, or is another one.
    """

    def __init__(self, place: str, mesh: jax.sharding.Mesh, hub_positions: bool = True) -> None:
        self.component = network_in(locate_network(place or NETWORK), "Dinov2Model", hub_positions=hub_positions)
        self.width: int = self.component.config.hidden_size
        self.feed = Feed(mesh, self.change)
        self._network = streamed_dinov2(on_host(self.component), mesh)

    def __call__(self, images: np.ndarray | jax.Array) -> np.ndarray:
        """Features of a batch, float32 `[B, width]`, the same on every process.

        Args:
          images: uint8 `[B, H, W, 3]`: on the host, where every process has all of them; or on the devices, split as
            `mesh.batch_sharding` splits a batch.
        """
        return self.measure(self.feed(images))[: len(images)]

    def change(self, image: np.ndarray) -> np.ndarray:
        """What the host does to the bytes of an image, uint8 `[H, W, 3]` -> `[224, 224, 3]`, as `feed` to batches."""
        return bicubic(image, SIDE)

    def measure(self, images: jax.Array) -> np.ndarray:
        """The same of images that `feed` has brought to the devices."""
        return np.asarray(self._network(images))

    def lower(self, images: jax.Array) -> list[jax.stages.Lowered]:
        """The programs for images that `feed` has brought to the devices, lowered and not compiled."""
        return self._network.lower(images)


def described_dinov2(place: str) -> Component:
    """The network of a place, as `plan` needs it: of the published one nothing is fetched.

    Raises:
      UserError: there is no such place, or it has another network.
    """
    return described(place or NETWORK, "Dinov2Model", {NETWORK: _LARGE}, hub_positions=True)


def streamed_dinov2(component: Component, mesh: jax.sharding.Mesh) -> Streamed:
    """The network of `Dinov2Features`: uint8 `[B, 224, 224, 3]` -> `[B, D]`."""

    def begin(network: Any, images: jax.Array) -> tuple[jax.Array]:
        return (network.embeddings(normalised(images.astype(jnp.float32), MEAN, STD)),)

    def end(network: Any, states: tuple[jax.Array], images: jax.Array) -> jax.Array:
        del images
        features: jax.Array = network.read(*states)
        return features

    return Streamed(component, [("encoder", "layer")], begin, end, mesh)
