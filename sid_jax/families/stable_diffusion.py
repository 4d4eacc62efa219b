"""A teacher: the diffusers folder (or hub id) of a Stable Diffusion pipeline, opened for JAX."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from sid_jax.errors import UserError
from sid_jax.formats.hub import locate
from sid_jax.formats.state_dict import Place
from sid_jax.models.registry import NETWORKS
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.teachers.component import Component, open_component

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


class Pipeline(NamedTuple):
    """The subfolders of a pipeline that have to do with text, each with the class of the network in it."""

    text_encoders: dict[str, str]
    tokenizers: tuple[str, ...]


PIPELINES = {
    "StableDiffusionPipeline": Pipeline({"text_encoder": "CLIPTextModel"}, ("tokenizer",)),
    "StableDiffusionXLPipeline": Pipeline(
        {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
        ("tokenizer", "tokenizer_2"),
    ),
}
PARTS = ("unet", "vae", "text_encoders")


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A text-to-image pipeline: its networks, tokenizers, scheduler settings, and where it came from.

    model_index: `model_index.json`, as it came.
    scheduler_config: `scheduler/scheduler_config.json`, as it came.
    source: the folder; None for a pipeline that was made here.
    """

    unet: Component
    vae: Component
    text_encoders: tuple[Component, ...]
    tokenizers: tuple["CLIPTokenizer", ...]
    scheduler_config: dict[str, Any]
    model_index: dict[str, Any]
    source: Path | None = None

    @property
    def pipeline(self) -> Pipeline:
        """Which subfolders this kind of pipeline has."""
        return PIPELINES[self.model_index["_class_name"]]

    @property
    def components(self) -> dict[str, Component]:
        """The networks by the names of their subfolders."""
        texts = dict(zip(self.pipeline.text_encoders, self.text_encoders, strict=True))
        return {"unet": self.unet, "vae": self.vae, **texts}


def load_teacher(
    source: str | Path,
    *,
    variant: str = "",
    revision: str = "main",
    dtype: jax.typing.DTypeLike | None = jnp.float32,
    parts: Collection[str] = PARTS,
    fetch: Collection[str] = (),
    place: Place | None = None,
) -> Teacher:
    """Opens a Stable Diffusion 1.x, 2.x or XL pipeline.

    Args:
      source: a folder that diffusers wrote, or a hub id.
      variant: of the weights; "fp16" reads `*.fp16.safetensors`.
      revision: branch, tag or commit of a hub id.
      dtype: type to store parameters in; None: as the files have them.
      parts: networks, of `PARTS`, whose parameters are read now. The others are abstract; their `load` reads them.
      fetch: further networks whose files are fetched where `source` is a hub id, for `load` or for copying.
      place: puts each array where it belongs; see `Component.load`.

    Raises:
      UserError: one line that says what is wrong with the folder, which file, and what to do.
    """
    wanted = {*parts, *fetch}
    unknown = wanted - set(PARTS)
    if unknown:
        raise ValueError(f"parts {sorted(unknown)} are none of {PARTS}")
    folder = locate(str(source), weights=_weights(wanted), variant=variant, revision=revision)
    index = read_json(folder / "model_index.json")
    pipeline = PIPELINES.get(str(index.get("_class_name")))
    if pipeline is None:
        found, known = index.get("_class_name"), " and ".join(PIPELINES)
        raise UserError(f"{folder / 'model_index.json'}: _class_name is {found!r}; {known} are supported")

    def open_network(name: str, class_name: str, part: str) -> Component:
        _check_class(folder, index, name, (class_name,))
        component = open_component(folder / name, class_name, variant=variant, param_dtype=dtype or jnp.float32)
        return component.load(dtype, place) if part in parts else component

    file = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_json(file)
    if not isinstance(scheduler.get("_class_name"), str):
        raise UserError(f"{file}: _class_name is {scheduler.get('_class_name')!r}; the name of a scheduler is needed")
    teacher = Teacher(
        unet=open_network("unet", "UNet2DConditionModel", "unet"),
        vae=open_network("vae", "AutoencoderKL", "vae"),
        text_encoders=tuple(open_network(n, c, "text_encoders") for n, c in pipeline.text_encoders.items()),
        tokenizers=tuple(_open_tokenizer(folder, index, name) for name in pipeline.tokenizers),
        scheduler_config=scheduler,
        model_index=index,
        source=folder,
    )
    _check_widths(teacher)
    return teacher


def _weights(parts: Collection[str]) -> list[tuple[str, str]]:
    # Before model_index.json is there to read, whatever the pipeline may have.
    subfolders = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    chosen = {name: kind for name, kind in subfolders.items() if name in parts}
    if "text_encoders" in parts:
        for pipeline in PIPELINES.values():
            chosen |= pipeline.text_encoders
    return [(name, NETWORKS[kind].stem) for name, kind in chosen.items()]


def _check_class(folder: Path, index: dict[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    entry = index.get(name)
    if not (isinstance(entry, list) and len(entry) == 2 and entry[1] in allowed):
        file, expected = folder / "model_index.json", " or ".join(allowed)
        raise UserError(f"{file}: {name} is {entry!r}; a {expected} is needed")


def _open_tokenizer(folder: Path, index: dict[str, Any], name: str) -> "CLIPTokenizer":
    from transformers import CLIPTokenizer  # here, as it takes seconds

    _check_class(folder, index, name, ("CLIPTokenizer", "CLIPTokenizerFast"))
    files = {file.name for file in (folder / name).glob("*")}
    # Without its vocabulary transformers would make up a tokenizer of three words.
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
        raise UserError(f"{folder / name}: no vocab.json and merges.txt, nor tokenizer.json")
    try:
        return CLIPTokenizer.from_pretrained(str(folder / name), local_files_only=True)
    except Exception as error:  # of any type, from the several parsers behind it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{folder / name}: not the tokenizer of a CLIP text encoder ({reason[:300]})") from error


def _check_widths(teacher: Teacher) -> None:
    unet, texts = teacher.unet.config, [component.config for component in teacher.text_encoders]
    width = sum(text.hidden_size for text in texts)
    file = teacher.source / "unet" / "config.json"
    if unet.cross_attention_dim != width:
        raise UserError(f"{file}: cross_attention_dim is {unet.cross_attention_dim}, but the text is {width} wide")
    latent = teacher.vae.config.latent_channels
    if unet.in_channels != latent or unet.out_channels != latent:
        found = f"{unet.in_channels} and {unet.out_channels}"
        raise UserError(f"{file}: in_channels and out_channels are {found}, but latents have {latent} channels")
    if (len(texts) == 2) != (unet.addition_embed_type == "text_time"):
        raise UserError(f"{file}: addition_embed_type {unet.addition_embed_type!r} with {len(texts)} text encoders")
    if len(texts) == 2:
        expected = texts[1].projection_dim + 6 * unet.addition_time_embed_dim
        found = unet.projection_class_embeddings_input_dim
        if found != expected:
            raise UserError(f"{file}: projection_class_embeddings_input_dim is {found}; the text gives {expected}")
