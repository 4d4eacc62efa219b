"""The networks of `clip_variants`, found, fetched and checked."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.evaluation.clip_variants import Variant
from sid_jax.evaluation.vision import described, network_in
from sid_jax.formats.bundle import Tensors
from sid_jax.formats.clip_tokenizer import has_tokenizer, read_tokenizer
from sid_jax.formats.hub import fetch_file
from sid_jax.formats.network_folder import locate_network
from sid_jax.formats.open_clip import OpenClipTensors
from sid_jax.formats.release import cache_folder
from sid_jax.formats.safetensors_files import open_weights
from sid_jax.formats.state_dict import to_params
from sid_jax.formats.torch_file import SUFFIXES, open_torch_file
from sid_jax.models.aesthetic import AestheticPredictor
from sid_jax.teachers import Component, build

_TEXT_H14 = {
    "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 24,
}  # fmt: skip
_VISION_H14 = {
    "hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16,
    "num_hidden_layers": 32, "patch_size": 14,
}  # fmt: skip
_VISION_G14 = {**_VISION_H14, "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 40}
_VISION_L14 = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
    "patch_size": 14,
}  # fmt: skip
H14 = {"model_type": "clip", "projection_dim": 1024, "text_config": _TEXT_H14, "vision_config": _VISION_H14}
"""ViT-H/14, of which HPSv2's files have no configuration."""
_PUBLISHED = {
    "openai/clip-vit-large-patch14": {
        "model_type": "clip", "projection_dim": 768, "vision_config": _VISION_L14,
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    },
    "yuvalkirstain/PickScore_v1": H14,
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": {**H14, "vision_config": _VISION_G14},
}  # fmt: skip

_HEAD = "sac+logos+ava1-l14-linearMSE.pth"
_HEAD_AT = f"https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/{_HEAD}"


def open_clip_model(variant: Variant, place: str = "") -> tuple[Component, Any]:
    """The network of a score, its parameters abstract, and its tokenizer; None where prompts have no part in it.

    Args:
      variant: the score.
      place: a folder in transformers' format, or the hub id of one; or a state dict of open_clip's ViT-H/14, `.pt`.
        Empty: the variant's own. The tokenizer is that of the same folder, else the variant's own.

    Raises:
      UserError: there is no such place, it can't be reached, or it has another network.
    """
    place = place or variant.network
    if Path(place).suffix in SUFFIXES:
        file = _file(place)
        folder, component = file.parent, of_open_clip(file, H14)
    else:
        folder = locate_network(place)
        component = network_in(folder, "CLIPModel")
    if variant.value == "aesthetic":
        return component, None
    if not has_tokenizer(folder):
        folder = locate_network(variant.texts or variant.network, weights=False)
    return component, read_tokenizer(folder)


def described_clip(variant: Variant, place: str = "") -> Component:
    """The network of a score, as `plan` needs it: of published ones nothing is fetched.

    Raises:
      UserError: there is no such place, or it has another network.
    """
    place = place or variant.network
    if Path(place).suffix in SUFFIXES:
        return build("CLIPModel", H14, where=place)
    return described(place, "CLIPModel", _PUBLISHED)


def of_open_clip(file: Path, config: dict[str, Any]) -> Component:
    """The network in a checkpoint of open_clip, `{"state_dict": ...}`.

    Args:
      file: as `torch.save` writes it.
      config: as CLIPModel's `config.json` has it, which such files have not.
    """
    component = build("CLIPModel", config, where=str(file))
    return dataclasses.replace(
        component, open_weights=lambda: OpenClipTensors(open_torch_file(file, inside="state_dict")), where=str(file)
    )


def open_head(place: str, width: int) -> tuple[AestheticPredictor, nnx.State]:
    """The aesthetic score's head: without memory for its parameters, and these.

    Args:
      place: its file, `.pth` or `.safetensors`; empty: the published one in the cache (`release.cache_folder`).
      width: of the embeddings.

    Raises:
      UserError: there is no such file, or it is of another network.
    """
    file = Path(place).expanduser() if place else cache_folder() / _HEAD
    if not file.is_file():
        raise UserError(f"{file}: no such file, the head of aesthetic_v2; download {_HEAD_AT} and put it there")
    weights: Tensors = open_torch_file(file) if file.suffix in SUFFIXES else open_weights(file.parent, file.stem)
    module: AestheticPredictor = nnx.eval_shape(lambda: AestheticPredictor(width, rngs=nnx.Rngs(0)))
    params = to_params(
        module, weights.stored, weights.tensors(), where=str(file), dtype=jnp.float32, network=f"the head {_HEAD}"
    )
    return module, params


def _file(place: str) -> Path:
    """A file here, or `organisation/name/file` of the hub."""
    file = Path(place).expanduser()
    if file.exists():
        return file
    repository, _, name = place.rpartition("/")
    if place.startswith(("/", ".", "~")) or repository.count("/") != 1:
        raise UserError(f"{place}: no such file")
    return fetch_file(repository, name)
