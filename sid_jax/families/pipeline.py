"""The parts of a Stable Diffusion pipeline, as a diffusers folder has them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sid_jax.teachers.component import Component

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


class Kind(NamedTuple):
    """The subfolders of a pipeline that have to do with text, each with the class of the network in it."""

    text_encoders: dict[str, str]
    tokenizers: tuple[str, ...]


KINDS = {
    "StableDiffusionPipeline": Kind({"text_encoder": "CLIPTextModel"}, ("tokenizer",)),
    "StableDiffusionXLPipeline": Kind(
        {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
        ("tokenizer", "tokenizer_2"),
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """The parts of a Stable Diffusion pipeline, as a diffusers folder has them.

    model_index: `model_index.json`, as it came.
    scheduler_config: that of the process that the networks were trained on.
    folder: where further files are; None for a pipeline that was made here.
    scheduler_at: where the scheduler's config is from, for error messages.
    """

    unet: Component
    vae: Component
    text_encoders: tuple[Component, ...]
    tokenizers: tuple["CLIPTokenizer", ...]
    scheduler_config: Mapping[str, Any]
    model_index: Mapping[str, Any]
    folder: Path | None = None
    scheduler_at: str = "scheduler_config.json"

    @property
    def kind(self) -> Kind:
        """Which subfolders this kind of pipeline has."""
        return KINDS[self.model_index["_class_name"]]

    @property
    def components(self) -> dict[str, Component]:
        """The networks by the names of their subfolders."""
        texts = dict(zip(self.kind.text_encoders, self.text_encoders, strict=True))
        return {"unet": self.unet, "vae": self.vae, **texts}
