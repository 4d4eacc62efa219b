"""A pipeline with random weights that trains in seconds: what tests and benchmarks of the machinery run on."""

from pathlib import Path

import numpy as np
from flax import nnx

from sid_jax.digits import networks
from sid_jax.digits import prompts as digits
from sid_jax.digits.metric import DigitClassifier, DigitsMetric
from sid_jax.digits.networks import MODEL_INDEX, SCHEDULER
from sid_jax.digits.tokenizer import write_tokenizer
from sid_jax.families.diffusers_export import save_pipeline
from sid_jax.families.pipeline import Pipeline


def write_tiny(folder: Path) -> None:
    """Writes `teacher` (a diffusers folder, of pictures of 32x32), `metric` and `prompts.txt` into a folder."""
    prompts = [digits.prompts_of(digit)[0] for digit in range(10)]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")

    vae = networks.autoencoder((4, 4, 8), 4, 32)
    tokenizer = write_tokenizer(folder / "tokenizer", prompts, 8)
    text = networks.text_encoder(tokenizer, 16, 1)
    unet = networks.unet((8,), 2, 4, 8, 16, attention=False)  # half as much to trace and to compile
    vae, text, unet = (networks.initialised(component, seed) for seed, component in enumerate((vae, text, unet)))
    save_pipeline(folder / "teacher", Pipeline(unet, vae, (text,), (tokenizer,), SCHEDULER, MODEL_INDEX))

    pictures = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8)
    classifier = DigitClassifier(rngs=nnx.Rngs(0))
    DigitsMetric.of(classifier, DigitsMetric(classifier, None).features_and_digits(pictures)[0]).save(folder / "metric")
