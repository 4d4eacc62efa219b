"""Makes a small class-conditional EDM of handwritten digits, in pixels: the other teacher of the package."""

import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from sid_jax.data.sources.image_zip import LABELS as LABELS_FILE
from sid_jax.digits import prompts as digits
from sid_jax.digits.card import LICENCE, data_named, head_of, rows_of
from sid_jax.digits.classifier import train_metric
from sid_jax.digits.fit import Schedule, fit
from sid_jax.digits.networks import initialised
from sid_jax.digits.pretrain import measure
from sid_jax.digits.settings import ANY
from sid_jax.digits.settings import EDM as SETTINGS
from sid_jax.families.edm import save_network, teacher_of
from sid_jax.formats.edm_folder import Description
from sid_jax.models.edm.augment import LABELS
from sid_jax.models.edm.augment import augment as augmented
from sid_jax.runtime.cli.settings import defaults_of, settings_in
from sid_jax.runtime.run.log import make_workdir
from sid_jax.runtime.storage.zips import member, zip_appearing
from sid_jax.sid import EDM, Condition, Draw, LogNormalKarras, fake_loss
from sid_jax.teachers import Component, build

_CARD = """\
{head}
# Handwritten digits in pixels: a small EDM

A class-conditional diffusion model of MNIST digits, {side}x{side}, grey, for trying out SiD and SiDA on a laptop. It is
a SongUNet ({parameters:,} parameters) under EDM's preconditioning, as the teachers of Karras et al. 2022 (arXiv
2206.00364) are, with their augmentation; its classes are the digits.

    python -m sid_jax.sample --model . --classes 0-9 --n 8 --out digits

## How it was made

    python -m sid_jax.pretrain --config configs/edm_digits_teacher.py --out DIR

trained it for {steps:,} updates of {batch} images, on {data}, whose pictures were reduced to {side} px, all in JAX and
from nothing. What it can do, on {samples:,} images by Heun's sampler, by the classifier in `edm_digits_metric`:

| steps | Frechet distance | accuracy |
|---|---|---|
{rows}

The same pictures, with their labels, are in `edm_digits_images.zip`, for training with real images.

MNIST is by Y. LeCun, C. Cortes and C. Burges (CC BY-SA 3.0), and what was made of it here is under the same licence.
"""


def default() -> ConfigDict:
    """Every setting, with its default."""
    return defaults_of(settings_in((ANY, SETTINGS)))


def pretrain(config: ConfigDict, out: Path) -> None:
    """Trains a metric network for small pictures and the teacher, and writes them and the pictures; see `models.make`.

    Raises:
      UserError: the data or the folder can't be used, or a setting makes no network.
    """
    denoiser = build("EDMPrecond", init_kwargs(config.network), where="config")
    pictures, labels = digits.load_mnist(config.data)
    pictures = reduced(pictures, config.network.resolution)
    make_workdir(str(out))

    metric = train_metric(pictures, labels, seed=config.seed, **config.classifier)
    metric.save(out / "edm_digits_metric")
    write_images(out / "edm_digits_images.zip", pictures[..., 0], labels)

    denoiser = train_denoiser(denoiser, pictures[..., :1], labels, seed=config.seed, **config.diffusion)
    teacher = teacher_of(denoiser)
    samplers = {steps: teacher.sampler(steps) for steps in config.evaluate.steps}
    rows = measure(teacher, metric, [i % 10 for i in range(config.evaluate.samples)], "steps", samplers)
    description = Description(denoiser.class_name, denoiser.config_json, EDM().default_start(1), LICENCE)
    save_network(out / "edm_digits", denoiser, description, said={}, card=_card(denoiser, config, rows))
    print(f"wrote edm_digits, edm_digits_metric and edm_digits_images.zip into {out}")


def init_kwargs(network: ConfigDict) -> dict[str, Any]:
    """The network's settings as files of EDM have them."""
    return {
        "img_resolution": network.resolution,
        "img_channels": 1,
        "label_dim": 10,
        "model_type": "SongUNet",
        "model_channels": network.channels,
        "channel_mult": list(network.multiples),
        "num_blocks": network.blocks,
        "attn_resolutions": [network.resolution >> (len(network.multiples) - 1)],
        "dropout": network.dropout,
        "augment_dim": LABELS,
    }


def reduced(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures uint8 `[N, 32, 32, 3]` to `[N, side, side, 3]`, by means of squares."""
    count, before, _, channels = pictures.shape
    squares = pictures.reshape(count, side, before // side, side, before // side, channels)
    return np.round(squares.mean((2, 4))).astype(np.uint8)


def write_images(file: Path, pictures: np.ndarray, labels: np.ndarray) -> None:
    """Writes grey pictures uint8 `[N, R, R]` and their labels `[N]` as `sid_jax.dataset` packs images, but small."""
    with zip_appearing(file, 2 * pictures.size) as packed:
        listed = []
        for number, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
            png, name = io.BytesIO(), f"{number:05d}.png"
            Image.fromarray(picture).save(png, "PNG", optimize=True)
            packed.writestr(member(name), png.getvalue())
            listed.append([name, label])
        packed.writestr(member(LABELS_FILE), json.dumps({"labels": listed}))


def train_denoiser(
    denoiser: Component, images: np.ndarray, labels: np.ndarray, *, augment: float, seed: int, **options: Any
) -> Component:
    """The network with parameters that denoise augmented images, by the loss of update A: it is EDM's own.

    Args:
      denoiser: its parameters are not looked at.
      images: uint8 `[N, R, R, 1]`.
      labels: `[N]`.
      augment: the probability of each transform.
      seed: of the initial parameters and all draws.
      **options: those of `fit.Schedule`.
    """
    denoiser, process, times = initialised(denoiser, seed), EDM(), LogNormalKarras()

    def loss(params: Any, key: jax.Array, batch: Any) -> jax.Array:
        pictures, classes = batch
        of_augment, of_time, of_noise, of_dropout = jax.random.split(key, 4)
        x, told = augmented(of_augment, pictures / 127.5 - 1, augment)
        draw = Draw(times.fake(of_time, len(x)), jax.random.normal(of_noise, x.shape, jnp.float32))
        network = nnx.merge(denoiser.graphdef, params, denoiser.constants)
        condition = Condition({"class_labels": classes, "augment_labels": told}, None)
        found = fake_loss(
            lambda x_t, t, cond: network(x_t, t, dropout_key=of_dropout, **cond), process, x, draw, condition, 1.0
        )
        return jnp.mean(found.loss) / x[0].size

    data = (jnp.asarray(images), jnp.asarray(labels))
    return denoiser.with_params(fit("diffusion", loss, denoiser.params, data, Schedule(**options), seed=seed))


def _card(denoiser: Component, config: ConfigDict, rows: list[dict[str, float]]) -> str:
    return _CARD.format(
        head=head_of("unconditional-image-generation", "sid_jax", "edm"),
        side=config.network.resolution,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(denoiser.params)),
        steps=config.diffusion.steps,
        batch=config.diffusion.batch,
        data=data_named(config.data),
        samples=config.evaluate.samples,
        rows=rows_of("steps", rows),
    )
