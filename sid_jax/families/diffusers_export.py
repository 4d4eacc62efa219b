"""Writing a whole diffusers folder that PyTorch's pipelines open: a distilled student, or a teacher made here."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from sid_jax.errors import UserError
from sid_jax.families.stable_diffusion import Teacher
from sid_jax.formats.safetensors_files import SHARD_BYTES, inside, write_weights
from sid_jax.formats.state_dict import Stored
from sid_jax.models.registry import NETWORKS
from sid_jax.runtime.storage.folders import appearing
from sid_jax.runtime.storage.json_files import read_json, write_json
from sid_jax.teachers.component import Component

MARKER = "sid_jax.json"  # in every folder that is written here
_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
_WHOLE = ("model.safetensors", "preprocessor_config.json")  # one of these makes an optional component usable


def save_pipeline(
    folder: str | Path,
    teacher: Teacher,
    unet_params: nnx.State | None = None,
    *,
    scheduler_config: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes `teacher` with another UNet as a diffusers folder, all of it or nothing.

    The UNet is written in float32. The other networks are copied from the teacher's files in the type they have there,
    under their present names; where there are no files (a teacher made here), from their parameters. Tokenizers,
    safety checker and feature extractor are copied where the teacher's folder has them, and null in
    `model_index.json` where not. Pickles are not copied.

    Args:
      folder: where to. It appears in one step, when it is complete.
      teacher: the pipeline.
      unet_params: the student's parameters; None: those of the teacher.
      scheduler_config: what to write instead of the teacher's; its `_class_name` goes into `model_index.json`.
      about: facts for the file `sid_jax.json`, such as the number of steps and the first time.
      texts: further files, path in the folder to content.
      overwrite: replace a diffusers folder that was not written by this function.
      shard_bytes: size beyond which weights are split into several files.

    Raises:
      UserError: `folder` is a link, a file, or a folder with other things in it; or files of the teacher are unusable.
    """
    folder = Path(folder).expanduser().absolute()
    _check_target(folder, teacher.source, overwrite)
    scheduler = dict(scheduler_config or teacher.scheduler_config)
    unet = teacher.unet
    if unet_params is not None:
        unet = dataclasses.replace(unet, params=unet_params, folder=None)
    try:
        _write(folder, teacher, unet, scheduler, {**(about or {}), "written_by": "sid_jax"}, texts or {}, shard_bytes)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from error


def _write(folder, teacher, unet, scheduler, about, texts, shard_bytes) -> None:
    with appearing(folder) as new:
        for name, component in {**teacher.components, "unet": unet}.items():
            _write_component(new / name, component, float32=name == "unet", shard_bytes=shard_bytes)
        for name, tokenizer in zip(teacher.pipeline.tokenizers, teacher.tokenizers, strict=True):
            _write_tokenizer(new / name, tokenizer, teacher.source and teacher.source / name)
        if teacher.source is not None:
            _copy_optional(teacher.source, new)
        (new / "scheduler").mkdir()
        write_json(new / "scheduler" / "scheduler_config.json", scheduler)
        write_json(new / "model_index.json", _model_index(new, teacher, scheduler))
        write_json(new / MARKER, about)
        for name, text in texts.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(text, encoding="utf-8")


def is_export(folder: Path) -> bool:
    """Whether `save_pipeline` has written `folder`."""
    file = folder / MARKER
    return file.is_file() and read_json(file).get("written_by") == "sid_jax"


def _check_target(folder: Path, source: Path | None, overwrite: bool) -> None:
    if folder.is_symlink():
        raise UserError(f"{folder}: a link; name the folder itself")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file of this name exists")
    if source is not None and folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise UserError(f"{folder}: the teacher {source} is there; choose another folder")
    if not any(folder.iterdir()) or is_export(folder):
        return
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{folder}: not empty, and not a diffusers folder; choose another")
    if not overwrite:
        raise UserError(f"{folder}: another pipeline is there; choose another folder, or overwrite it")


def _write_component(folder: Path, component: Component, *, float32: bool, shard_bytes: int) -> None:
    folder.mkdir()
    write_json(folder / "config.json", component.config_json)
    stored, tensors = component.state_dict()
    if float32:
        stored = {name: Stored(entry.shape, "float32") for name, entry in stored.items()}
    write_weights(folder, NETWORKS[component.class_name].stem, stored, tensors, shard_bytes=shard_bytes)


def _write_tokenizer(folder: Path, tokenizer: Any, source: Path | None) -> None:
    if source is None:
        tokenizer.save_pretrained(folder)
    else:
        _copy_files(source, folder)


def _copy_optional(source: Path, target: Path) -> None:
    """Copies the components that have to do with the safety checker, of those that are whole."""
    present = {name for name in _OPTIONAL if any((source / name / file).is_file() for file in _WHOLE)}
    if "feature_extractor" not in present:  # without which a pipeline does not take its safety checker
        present.discard("safety_checker")
    for name in sorted(present):
        _copy_files(source / name, target / name)


def _copy_files(source: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file() and (file.suffix in (".json", ".txt") or file.name in _WHOLE):
            if not inside(source, file):
                raise UserError(f"{file}: a link out of its folder, which is not followed")
            shutil.copyfile(file, target / file.name)


def _model_index(folder: Path, teacher: Teacher, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's `model_index.json`, with null for the components that are not in `folder`."""
    present = {entry.name for entry in folder.iterdir()}
    index = {
        name: [None, None] if isinstance(value, list) and name not in present else value
        for name, value in teacher.model_index.items()
    }
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    if index.get("safety_checker") == [None, None]:
        index["requires_safety_checker"] = False
    return index
