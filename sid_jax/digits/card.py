"""The model card of a teacher that was made here."""

from typing import Any

import jax
from ml_collections import ConfigDict

from sid_jax.families.pipeline import Pipeline
from sid_jax.formats.model_card import head, licence_named

LICENCE = "CC BY-SA 3.0"
"""Of MNIST, which networks of digits are trained on, and so theirs."""

_CARD = """\
{head}
# Handwritten digits: a small Stable Diffusion

A text-to-image latent diffusion model of MNIST digits, {resolution}x{resolution} RGB, for trying out distillation on a
laptop. It has the parts of Stable Diffusion 1.5: a CLIP text encoder ({text:,} parameters), a UNet with
cross-attention ({unet:,}), a KL autoencoder ({vae:,}; latents {size}x{size}x{channels}). It knows prompts such as "a
handwritten seven", "the digit 7", "the number 7 written by hand", and the empty prompt.

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained(".")  # where this file is
size = {{"height": {resolution}, "width": {resolution}}}
image = pipe("a handwritten seven", num_inference_steps=50, guidance_scale={best}, **size).images[0]
```

## How it was made

    python -m sid_jax.pretrain --config configs/digits_teacher.py --out DIR

trained the autoencoder for {vae_steps:,} updates of {vae_batch} images, then the UNet and the text encoder together for
{steps:,} updates of {batch}, on {data} (eps-prediction, scaled_linear betas, prompts dropped with probability
{dropout}), all in JAX and from nothing. What it can do, on {samples:,} images of {ddim}-step DDIM, by the classifier in
`digits_metric`:

| guidance | Frechet distance | prompt accuracy |
|---|---|---|
{rows}

MNIST is by Y. LeCun, C. Cortes and C. Burges (CC BY-SA 3.0), and these networks, which were made of it, are under the
same licence.
"""


def model_card(pipeline: Pipeline, config: ConfigDict, rows: list[dict[str, float]]) -> str:
    """The card, with the `rows` of the teacher's metric at each guidance scale."""

    def count(params: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    best = min(rows, key=lambda row: row["frechet_distance"])
    return _CARD.format(
        head=head_of("text-to-image", "diffusers", "stable-diffusion"),
        resolution=pipeline.vae.config.sample_size,
        text=count(pipeline.text_encoders[0].params),
        unet=count(pipeline.unet.params),
        vae=count(pipeline.vae.params),
        size=pipeline.unet.config.sample_size,
        channels=pipeline.vae.config.latent_channels,
        best=f"{best['guidance']:g}",
        vae_steps=config.autoencoder.steps,
        vae_batch=config.autoencoder.batch,
        steps=config.diffusion.steps,
        batch=config.diffusion.batch,
        data=data_named(config.data),
        dropout=config.diffusion.prompt_dropout,
        samples=config.evaluate.samples,
        ddim=config.evaluate.steps,
        rows=rows_of("guidance", rows),
    )


def head_of(pipeline_tag: str, library_name: str, kind: str) -> str:
    """The head of a card; `kind` is the tag that says what kind of model it is."""
    return head(
        licence=licence_named(LICENCE),
        source="",
        pipeline_tag=pipeline_tag,
        library_name=library_name,
        tags=(kind, "mnist", "sid_jax"),
    )


def data_named(data: str) -> str:
    """What a card calls the pictures of the config key `data`."""
    return "MNIST" if data == "mnist" else "8,000 images of MNIST"


def rows_of(column: str, rows: list[dict[str, float]]) -> str:
    """Lines of a card's table: what is in the column, Frechet distance, and accuracy."""
    return "\n".join(
        f"| {row[column]:g} | {row['frechet_distance']:.2f} | {row['prompt_accuracy']:.4f} |" for row in rows
    )
