"""Encodes the image-text pairs of a config once, into a cache of latents, so that training needs no autoencoder."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sid_jax.data.images import Corrupted, decode
from sid_jax.data.pairs import PairSource
from sid_jax.data.sources.latents import check_free, write_cache
from sid_jax.errors import UserError
from sid_jax.experiment.build import open_teacher
from sid_jax.experiment.networks import params_of
from sid_jax.experiment.streams import open_images
from sid_jax.runtime.run.progress import following
from sid_jax.teachers.space import Space

MOST_AT_A_TIME = 4096  # images of 512 pixels, which take 3 GB


def encode(config: ConfigDict, out: Path, batch: int = 16) -> None:
    """Writes the cache.

    Args:
      config: of the run that will train from it.
      out: folder of the cache.
      batch: images at a time, at most `MOST_AT_A_TIME`, or as many as there are.

    Raises:
      UserError: the pairs, the teacher or the folder can't be used.
    """
    if batch < 1:
        raise UserError(f"--batch is {batch}: use a positive number")
    check_free(out, config.real.source)
    source = open_images(config)
    if source.encoded is not None:
        raise UserError(f"real.source {config.real.source} is a cache of latents already: name the images")
    batch = min(batch, len(source))
    if batch > MOST_AT_A_TIME:
        raise UserError(f"--batch is {batch}: use at most {MOST_AT_A_TIME}")
    space = open_teacher(config, "space").space
    skipped: list[int] = []
    count = write_cache(
        out,
        _batches(source, space, config, batch, skipped),
        len(source),
        source=source.name,
        autoencoder=space.digest(),
        resolution=config.resolution,
    )
    print(f"wrote {count} latents to {out}; {len(skipped)} images can't be used")


def _batches(
    source: PairSource, space: Space, config: ConfigDict, batch: int, skipped: list[int]
) -> Iterator[tuple[np.ndarray, list[tuple[str, ...]]]]:
    """Latents and captions of the pairs that can be used; the indices of the others are added to `skipped`."""
    encode_images = jax.jit(space.encode_images)

    def latents(images: list[np.ndarray]) -> np.ndarray:
        # The last batch is filled up, so that there is one shape to compile for.
        filled = np.stack(images + images[-1:] * (batch - len(images)))
        return np.asarray(encode_images(params_of(space.parts), filled))[: len(images)]

    images, conditions = [], []
    for index in following(range(len(source)), len(source), "encoding"):
        try:
            pair = source[index]
            if not isinstance(pair.image, bytes):
                raise Corrupted("it is no file of an image")
            images.append(decode(pair.image, config.resolution, config.real.max_pixels))
            conditions.append(pair.conditions)
        except Corrupted:
            skipped.append(index)
        if images and (len(images) == batch or index == len(source) - 1):
            yield latents(images), conditions
            images, conditions = [], []
