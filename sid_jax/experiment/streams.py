"""What the GAN term needs of the outside world, as a config says it: image-text pairs for the train step."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from sid_jax.data.pairs import PairSource
from sid_jax.data.sources.latents import LatentCache
from sid_jax.data.sources.open import open_pairs
from sid_jax.data.streams import JoinedStream, PairStream
from sid_jax.errors import UserError
from sid_jax.experiment.networks import latent_shape
from sid_jax.families.stable_diffusion import Teacher
from sid_jax.sid import Settings


def open_source(config: ConfigDict) -> PairSource:
    """The pairs of `real.source`.

    Raises:
      UserError: there are none.
    """
    real = config.real
    return open_pairs(real.source, split=real.split, data_dir=real.data_dir, image=real.image, caption=real.caption)


def with_real_images(
    prompts: Any,
    config: ConfigDict,
    settings: Settings,
    teacher: Teacher,
    read: Callable[[list[str]], Any],
    rows: Sequence[int] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The stream of a run's data, and the frozen parameters that its images are encoded with, to be put beside others.

    Without a GAN term that is the stream of prompts and nothing.

    Args:
      prompts: the stream of prompts.
      config, settings, teacher: the run's.
      read: from captions to what the train step is given of them.
      rows: the indices of this host's rows of a batch; by default all.

    Raises:
      UserError: the pairs can't be read, or they are latents that are not the teacher's.
    """
    if not settings.gan.lambda_d:
        return prompts, {}
    if config.text.precompute:
        raise UserError(
            "config key text.precompute is true, but captions of real images are not among the prompts that are "
            "encoded once: set it to false, or both weights of the GAN term to 0"
        )
    source = open_source(config)
    cached = isinstance(source, LatentCache)
    if cached:
        _check_cache(source, config, teacher)
    pairs = PairStream(source, config.batch, config.seed, read, config.resolution, config.real.max_pixels, rows)
    return JoinedStream(prompts, pairs), {} if cached else {"vae": teacher.vae.params}


def autoencoder_digest(teacher: Teacher) -> str:
    """What identifies the latents that a teacher's autoencoder makes: hexadecimal SHA-256 of its files."""
    digest = hashlib.sha256()
    for path in (teacher.vae.folder / "config.json", *teacher.vae.weights().files):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _check_cache(cache: LatentCache, config: ConfigDict, teacher: Teacher) -> None:
    shape = latent_shape(teacher, config.resolution)
    if cache.shape != shape or cache.resolution != config.resolution:
        raise UserError(
            f"real.source {config.real.source}: its latents {cache.shape} are of images of {cache.resolution} px; "
            f"resolution {config.resolution} needs {shape}: write it anew"
        )
    if cache.autoencoder != autoencoder_digest(teacher):
        raise UserError(
            f"real.source {config.real.source}: its latents are those of another autoencoder than the teacher's: "
            "write it anew"
        )
