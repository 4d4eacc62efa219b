"""What a run reads, as its config says it: prompts or labels, and for the GAN term real images."""

from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from sid_jax import assets
from sid_jax.data.labels import CountedLabels, read_counts
from sid_jax.data.pairs import Encoded, PairSource
from sid_jax.data.sources.open import open_pairs
from sid_jax.data.streams import JoinedStream, PairStream
from sid_jax.errors import UserError
from sid_jax.experiment.condition_cache import precomputes
from sid_jax.experiment.networks import params_of
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.sid import Batch, Gan, Real
from sid_jax.size import Resolution, size_of
from sid_jax.teachers.conditions import Asked
from sid_jax.teachers.space import Space
from sid_jax.teachers.teacher import Teacher


def open_images(config: ConfigDict) -> PairSource:
    """The images of `real.source`, each with what it is of.

    Raises:
      UserError: there are none.
    """
    real = config.real
    return open_pairs(
        assets.resolve(real.source),
        split=real.split,
        data_dir=real.data_dir,
        image=real.image,
        caption=real.caption,
        label=real.label if "label" in real else None,
    )


def open_stream(
    config: ConfigDict, gan: Gan, teacher: Teacher, asked: Asked, rows: Sequence[int] | None = None
) -> tuple[Any, tuple[Any, ...]]:
    """The stream of a run's data, and the frozen parameters that the train step encodes its images with.

    Without a GAN term that is a stream of prompts or labels, and no parameters.

    Args:
      config: the run's.
      gan: its numbers.
      teacher: its conditions read what is asked for.
      asked: prompts or labels.
      rows: the indices of this host's rows of a batch; by default all.

    Raises:
      UserError: the images can't be read, or they are latents that are not the teacher's.
    """
    stream = teacher.conditions.stream(_as_counted(config, asked), config.batch, config.seed, rows)
    if not gan.used:
        return stream, ()
    if precomputes(config):
        raise UserError(
            "config key text.precompute is true, but captions of real images are not among the prompts that are "
            "encoded once: set it to false, or both weights of the GAN term to 0"
        )
    source = open_images(config)
    teacher.conditions.check_pairs(source)
    encoded = source.encoded
    if encoded is not None:
        _check_encoded(encoded, config.real.source, teacher.space, config.resolution)
    pairs = PairStream(
        source,
        config.batch,
        config.seed,
        teacher.conditions.read,
        config.resolution,
        config.real.max_pixels,
        rows,
    )
    joined = JoinedStream(stream, pairs, fake_as_real=gan.of_real_conditions)
    return joined, () if encoded is not None else params_of(teacher.space.parts)


def placed_batch(
    read: dict[str, Any], batch: int, empty: Any, mesh: jax.sharding.Mesh
) -> tuple[Batch, jax.Array | None]:
    """What a stream gave for an iteration, on the devices, and how many images were skipped for each sample, `[B]`.

    Args:
      read: this host's rows.
      batch: B.
      empty: what was read for the unconditional case, on the devices.
      mesh: the devices.
    """
    placed = meshes.place_batch(read, batch, mesh)
    real = placed.get("real")
    of_images = None if real is None else Real(real["images"], real["tokens"])
    corrupted = None if real is None else real["corrupted"]
    return Batch(placed["fake"], placed["generator"], empty, of_images), corrupted


def _as_counted(config: ConfigDict, asked: Asked) -> Asked:
    """All classes, as often as the file `labels.counts` says; without one what is asked for, as it is."""
    counts = config.labels.counts if "labels" in config else ""
    return CountedLabels(asked, read_counts(counts, len(asked))) if counts else asked


def _check_encoded(encoded: Encoded, name: str, space: Space, resolution: Resolution) -> None:
    shape = space.shape(resolution)
    found, wanted = size_of(encoded.resolution), size_of(resolution)
    if encoded.shape != shape or found != wanted:
        raise UserError(
            f"real.source {name}: its latents {encoded.shape} are of images of {found} px; "
            f"resolution {wanted} needs {shape}: write it anew"
        )
    if encoded.space != space.digest():
        raise UserError(
            f"real.source {name}: its latents are those of another autoencoder than the teacher's: write it anew"
        )
