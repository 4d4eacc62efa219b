"""Encodes the image-text pairs of a config once, into a cache of latents."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from sid_jax.data.images import Corrupted, decode
from sid_jax.data.pairs import PairSource
from sid_jax.data.sources.latents import LatentCache, write_cache
from sid_jax.errors import UserError
from sid_jax.experiment import build
from sid_jax.experiment.networks import networks_of
from sid_jax.experiment.streams import autoencoder_digest, open_source
from sid_jax.families.stable_diffusion import Teacher


def encode(config: ConfigDict, out: Path, batch: int = 16) -> None:
    """Writes the cache.

    Raises:
      UserError: the pairs, the teacher or the folder can't be used.
    """
    source = open_source(config)
    if isinstance(source, LatentCache):
        raise UserError(f"real.source {config.real.source} is a cache of latents already: name the images")
    teacher = build.open_teacher(config, parts=("vae",))
    skipped: list[int] = []
    count = write_cache(
        out,
        _batches(source, teacher, config, batch, skipped),
        len(source),
        source=source.name,
        autoencoder=autoencoder_digest(teacher),
        resolution=config.resolution,
    )
    print(f"wrote {count} latents to {out}; {len(skipped)} images can't be used")


def _batches(
    source: PairSource, teacher: Teacher, config: ConfigDict, batch: int, skipped: list[int]
) -> Iterator[tuple[np.ndarray, list[tuple[str, ...]]]]:
    """Latents and captions of the pairs that can be used; the indices of the others are added to `skipped`."""
    encode_images = jax.jit(networks_of(teacher, config.resolution).encode_images)

    def latents(images: list[np.ndarray]) -> np.ndarray:
        # The last batch is filled up, so that there is one shape to compile for.
        filled = np.stack(images + images[-1:] * (batch - len(images)))
        return np.asarray(encode_images(teacher.vae.params, filled))[: len(images)]

    images, captions = [], []
    for index in tqdm(range(len(source)), unit="image", disable=None):
        try:
            pair = source[index]
            images.append(decode(pair.image, config.resolution, config.real.max_pixels))
            captions.append(pair.captions)
        except Corrupted:
            skipped.append(index)
        if images and (len(images) == batch or index == len(source) - 1):
            yield latents(images), captions
            images, captions = [], []
