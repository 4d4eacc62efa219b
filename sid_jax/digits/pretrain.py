"""Makes a small Stable Diffusion of handwritten digits from scratch: the teacher that comes with the package."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sid_jax.digits import networks
from sid_jax.digits import prompts as digits
from sid_jax.digits.autoencoder import train_autoencoder
from sid_jax.digits.card import model_card
from sid_jax.digits.classifier import train_metric
from sid_jax.digits.diffusion import Pairs, train_diffusion
from sid_jax.digits.metric import DigitsMetric
from sid_jax.digits.networks import MODEL_INDEX, SCHEDULER
from sid_jax.digits.settings import ANY, STABLE_DIFFUSION
from sid_jax.digits.tokenizer import write_tokenizer
from sid_jax.experiment.images import ImageProgram
from sid_jax.families.diffusers_export import save_pipeline
from sid_jax.families.pipeline import Pipeline
from sid_jax.families.schedulers import process_of
from sid_jax.families.stable_diffusion import teacher_of
from sid_jax.runtime.cli.settings import defaults_of, settings_in
from sid_jax.runtime.run.log import make_workdir
from sid_jax.teachers.conditions import Asked
from sid_jax.teachers.teacher import Sampler, Teacher


def default() -> ConfigDict:
    """Every setting, with its default."""
    return defaults_of(settings_in((ANY, STABLE_DIFFUSION)))


def pretrain(config: ConfigDict, out: Path) -> None:
    """Trains the metric network and the teacher, and writes them into `out`; `models.make` calls it.

    Raises:
      UserError: the data or the folder can't be used, or a setting makes no network.
    """
    pictures, labels = digits.load_mnist(config.data)
    images = pictures.astype(np.float32) / 127.5 - 1
    prompts = digits.all_prompts()
    make_workdir(str(out))
    (out / "digits_prompts.txt").write_text("\n".join(prompts) + "\n")

    # ---- The metric: a classifier, and the statistics of its features of the real images.
    metric = train_metric(pictures, labels, seed=config.seed, **config.classifier)
    metric.save(out / "digits_metric")

    # ---- The autoencoder, and the latents of the images.
    options = dict(config.autoencoder)
    vae = networks.autoencoder(options.pop("channels"), options.pop("latent_channels"), images.shape[1])
    vae, latents = train_autoencoder(vae, images, seed=config.seed, **options)

    # ---- The tokenizer, the text encoder and the UNet.
    options = dict(config.diffusion)
    tokenizer = write_tokenizer(out / "digits_tokenizer", prompts, options.pop("max_tokens"))
    text = networks.text_encoder(tokenizer, options.pop("text_width"), options.pop("text_layers"))
    shape = latents.shape[1:]
    unet = networks.unet(options.pop("channels"), options.pop("heads"), shape[-1], shape[0], text.config.hidden_size)
    pipeline = Pipeline(unet, vae, (text,), (tokenizer,), SCHEDULER, MODEL_INDEX)
    conditions = teacher_of(pipeline).conditions
    pairs = Pairs(
        latents,
        labels,
        np.stack([conditions.read(digits.prompts_of(digit))[0] for digit in range(10)]),
        conditions.empty()[0][0],
    )
    unet, text = train_diffusion(unet, text, process_of(SCHEDULER), pairs, seed=config.seed, **options)
    pipeline = dataclasses.replace(pipeline, unet=unet, text_encoders=(text,))

    # ---- The folder, with what the teacher can do at each guidance scale.
    teacher, settings = teacher_of(pipeline), config.evaluate
    samplers = {scale: teacher.sampler(settings.steps, scale) for scale in settings.guidance}
    asked = [prompts[i % len(prompts)] for i in range(settings.samples)]
    rows = measure(teacher, metric, asked, "guidance", samplers)
    save_pipeline(out / "digits", pipeline, texts={"README.md": model_card(pipeline, config, rows)})
    shutil.rmtree(out / "digits_tokenizer")
    print(f"wrote {out / 'digits'}, {out / 'digits_metric'} and {out / 'digits_prompts.txt'}")


def measure(
    teacher: Teacher, metric: DigitsMetric, asked: Asked, column: str, samplers: Mapping[float, Sampler]
) -> list[dict[str, float]]:
    """The metric of the teacher's images by each sampler: rows of its card.

    Args:
      teacher: with all parameters.
      metric: of images of the teacher's resolution.
      asked: what is asked for, one of it for each image.
      column: what the samplers differ in.
      samplers: by what the column says of each.
    """
    rows = []
    for value, sampler in samplers.items():
        program = ImageProgram(teacher, sampler, metric.resolution)
        found = metric(program(teacher.denoiser.params, asked, 0), asked)
        rows.append({column: value, **found})
        said = "Frechet distance {frechet_distance:.2f}, accuracy {prompt_accuracy:.4f}".format(**found)
        print(f"{column} {value}: {said}")
    return rows
