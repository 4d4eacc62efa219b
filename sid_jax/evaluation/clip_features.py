"""Images and prompts to scores: the cosine of their CLIP embeddings, and preference scores, by `clip_variants`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.evaluation.clip_networks import open_clip_model, open_head
from sid_jax.evaluation.clip_variants import VARIANTS, Variant
from sid_jax.evaluation.feed import Feed
from sid_jax.evaluation.streamed import Streamed, on_host
from sid_jax.evaluation.vision import normalised
from sid_jax.models.aesthetic import AestheticPredictor
from sid_jax.runtime.devices import mesh as meshes
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
        self.component, self._tokenizer = open_clip_model(self.variant, place)
        self.side: int = self.component.config.vision_config.image_size
        self.feed = Feed(mesh, self.change)
        self._end = self._prefix = None
        if self._tokenizer is not None:
            self._end = self._tokenizer.eos_token_id
            self._prefix = self._words(self.variant.prefix)
        self._head = None
        if self.variant.value == "aesthetic":
            self._head = _program_of(*open_head(head, self.component.config.projection_dim), mesh)
        self._network = streamed_clip(on_host(self.component), self.variant, mesh)

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
        found = self._network(images, ids)
        scores = np.asarray(found if self._head is None else self._head(found))[: len(prompts)]
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

    def lower(self, images: jax.Array, prompts: Sequence[str]) -> list[jax.stages.Lowered]:
        """The programs for a batch that `feed` has brought to the devices, lowered and not compiled."""
        return self._network.lower(images, self.tokens(prompts))

    def _words(self, text: str) -> np.ndarray:
        """The tokens of a text, without where it begins and ends."""
        config, where = self.component.config.text_config, self.component.where
        ids = token_ids(self._tokenizer, [text], config, where)[0]
        return ids[1 : int(np.argmax(ids == self._end))]


def streamed_clip(component: Component, variant: Variant, mesh: jax.sharding.Mesh) -> Streamed:
    """The network of `ClipScore`: uint8 `[B, h, w, 3]` and tokens `[B, L]` -> scores `[B]`.

    Of the aesthetic score there are no tokens, and it gives the images' embeddings `[B, D]`.
    """
    side, with_texts = component.config.vision_config.image_size, variant.value != "aesthetic"

    def begin(network: Any, images: jax.Array, ids: jax.Array | None) -> tuple[jax.Array, ...]:
        pixels = variant.on_device(images.astype(jnp.float32), side)
        embedded = network.vision_model.embed(normalised(pixels, MEAN, STD))
        return (embedded, network.text_model.embeddings(ids)) if with_texts else (embedded,)

    def end(network: Any, states: tuple[jax.Array, ...], images: jax.Array, ids: jax.Array | None) -> jax.Array:
        del images
        embedded: jax.Array = network.project_image(network.vision_model.read(states[0]))
        if not with_texts:
            return embedded
        cosines = jnp.sum(embedded * network.project_text(network.text_model.read(states[1:], ids)), axis=-1)
        scale = {"cosine": 1.0, "percent": 100.0}.get(variant.value)
        return cosines * (jnp.exp(network.logit_scale[...]) if scale is None else scale)

    stacks = [("vision_model", "encoder", "layers"), ("text_model", "encoder", "layers")]
    return Streamed(component, stacks, begin, end, mesh)


def _program_of(head: AestheticPredictor, params: nnx.State, mesh: jax.sharding.Mesh) -> Callable[..., jax.Array]:
    """Embeddings `[B, D]`, which all devices have whole -> `[B]`."""
    graph, whole = nnx.graphdef(head), meshes.replicated(mesh)

    @functools.partial(jax.jit, out_shardings=whole)
    def program(params: nnx.State, embedded: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            score: jax.Array = nnx.merge(graph, params)(embedded)
            return score

    return functools.partial(program, meshes.place(params, whole))
