"""Images and prompts to scores: the cosine of their CLIP embeddings, and preference scores, by `clip_variants`."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.evaluation.clip_networks import open_clip_model, open_head
from sid_jax.evaluation.clip_variants import VARIANTS, Variant
from sid_jax.evaluation.feed import Feed
from sid_jax.evaluation.vision import normalised, onto
from sid_jax.models.aesthetic import AestheticPredictor
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.gather import gather_weights
from sid_jax.teachers import Component
from sid_jax.teachers.conditions import token_ids

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the channels of the images that CLIP was trained with."""


class ClipScore:
    """A score of each image and its prompt, in float32, each image on one device of a mesh.

    Args:
      place: where the network is: a folder or a hub id, empty for the variant's own; see `open_clip_model`.
      variant: a name of `VARIANTS`.
      mesh: the devices; all their processes call this.
      head: of "aesthetic_v2", the file of its head; empty: see `open_head`.

    Raises:
      UserError: the network can't be had, is damaged, or is another one.
    """

    def __init__(self, place: str, variant: str, mesh: jax.sharding.Mesh, head: str = "") -> None:
        self.variant, self._mesh = VARIANTS[variant], mesh
        component, self._tokenizer = open_clip_model(self.variant, place)
        graph, head_params = None, None
        if self.variant.value == "aesthetic":
            graph, head_params = open_head(head, component.config.projection_dim)
        self.component = onto(component, mesh)
        self.side: int = component.config.vision_config.image_size
        self.feed = Feed(mesh, self.change)
        self._end = self._prefix = None
        if self._tokenizer is not None:
            self._end = self._tokenizer.eos_token_id
            self._prefix = self._words(self.variant.prefix)
        self._params = self.component.whole, meshes.place(head_params, meshes.replicated(mesh))
        self._program = jax.jit(
            functools.partial(scores_of, self.variant, self.component, graph, mesh, self.side),
            out_shardings=meshes.replicated(mesh),
        )

    def __call__(self, images: np.ndarray | jax.Array, prompts: Sequence[str]) -> np.ndarray:
        """Scores of a batch, the same on every process.

        Args:
          images: uint8 `[B, H, W, 3]`: on the host, where every process has all of them; or on the devices, split as
            `mesh.batch_sharding` splits a batch.
          prompts: B of them, on every process.

        Returns:
          float32 `[B]`, whose mean is the score.

        Raises:
          UserError: a score is not finite.
        """
        return self.measure(self.feed(images), prompts)

    def change(self, image: np.ndarray) -> np.ndarray:
        """What the host does to the bytes of an image, uint8 `[H, W, 3]` -> `[h, w, 3]`; `feed` does it to batches."""
        return self.variant.on_host(image, self.side)

    def measure(self, images: jax.Array, prompts: Sequence[str]) -> np.ndarray:
        """The same of changed images that are on the devices; what is beyond the prompts only fills up."""
        filled = [*prompts, *[""] * (len(images) - len(prompts))]
        ids = meshes.place(self.tokens(filled), meshes.batch_sharding(self._mesh))
        scores = np.asarray(self._program(self._params, images, ids))[: len(prompts)]
        if not np.isfinite(scores).all():
            raise UserError(f"{self.component.where}: it gives scores that are not finite: its weights are damaged")
        return scores

    def tokens(self, prompts: Sequence[str]) -> np.ndarray | None:
        """What the text encoder reads, int32 `[B, L]`; None where prompts have no part in the score."""
        if self._tokenizer is None:
            return None
        config, where = self.component.config.text_config, self.component.where
        ids = token_ids(self._tokenizer, list(prompts), config, where)
        if self._prefix is None or not len(self._prefix):
            return ids
        put = np.broadcast_to(self._prefix, (len(ids), len(self._prefix)))
        ids = np.concatenate([ids[:, :1], put, ids[:, 1:]], axis=1)[:, : ids.shape[1]]
        ids[:, -1] = self._end  # what was cut off may have had it; beyond an end, nothing matters
        return ids

    def lower(self, images: jax.Array, prompts: Sequence[str]) -> jax.stages.Lowered:
        """The program for a batch that `feed` has brought to the devices, lowered and not compiled."""
        return self._program.lower(self._params, images, self.tokens(prompts))

    def _words(self, text: str) -> np.ndarray:
        """The tokens of a text, without where it begins and ends."""
        config, where = self.component.config.text_config, self.component.where
        ids = token_ids(self._tokenizer, [text], config, where)[0]
        return ids[1 : int(np.argmax(ids == self._end))]


def scores_of(
    variant: Variant,
    component: Component,
    head: AestheticPredictor | None,
    mesh: jax.sharding.Mesh,
    side: int,
    params: tuple[Any, Any],
    images: jax.Array,
    ids: jax.Array | None,
) -> jax.Array:
    """The program of `ClipScore`: uint8 `[B, h, w, 3]` and tokens `[B, L]` -> `[B]`."""
    with jax.default_matmul_precision("highest"):
        model: Any = gather_weights(nnx.merge(component.graphdef, params[0]), mesh)
        pixels = variant.on_device(images.astype(jnp.float32), side)
        embedded = model.embed_images(normalised(pixels, MEAN, STD))
        if head is not None:
            predictor = nnx.merge(nnx.graphdef(head), params[1])
            score: jax.Array = predictor(embedded)
            return score
        cosines = jnp.sum(embedded * model.embed_texts(ids), axis=-1)
        scale = {"cosine": 1.0, "percent": 100.0}.get(variant.value)
        return cosines * (jnp.exp(model.logit_scale[...]) if scale is None else scale)
