"""Writing a whole diffusers folder that PyTorch's pipelines open: a distilled student, or a teacher made here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from sid_jax.families.card import card_of
from sid_jax.families.pipeline import Pipeline
from sid_jax.families.schedulers import scheduler_of
from sid_jax.formats.diffusers_folder import INDEX, copy_files, copy_optional, index_without_missing
from sid_jax.formats.export_folder import Layout, exported
from sid_jax.formats.marker import MARKER
from sid_jax.formats.safetensors_files import SHARD_BYTES, write_weights
from sid_jax.formats.state_dict import Stored
from sid_jax.models.registry import NETWORK_TYPES
from sid_jax.runtime.storage.json_files import write_json
from sid_jax.teachers.component import Component
from sid_jax.teachers.teacher import Export

_LAYOUT = Layout("a diffusers folder", "another pipeline", (INDEX,))


def write_student(pipeline: Pipeline, folder: str | Path, student: Export, *, overwrite: bool = False) -> None:
    """Writes a student of a pipeline's teacher; see `teachers.teacher.Writer`.

    The file `sid_jax.json` says how it was trained, and what the teacher's process is; the folder's scheduler is
    PyTorch's.

    Raises:
      UserError: the folder can't be written, or holds something else.
    """
    scheduler = scheduler_of(student.sampler)
    save_pipeline(
        folder,
        pipeline,
        student.params,
        scheduler_config=scheduler.config,
        about={
            "config": dict(student.settings),
            "step": student.step,
            "teacher_scheduler": dict(pipeline.scheduler_config),
        },
        texts={**scheduler.files, "README.md": card_of(student, pipeline, stock=scheduler.exact)},
        overwrite=overwrite,
    )


def save_pipeline(
    folder: str | Path,
    pipeline: Pipeline,
    unet_params: nnx.State | None = None,
    *,
    scheduler_config: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a pipeline with another UNet as a diffusers folder, all of it or nothing.

    The UNet is written in float32. The other networks are copied from the teacher's files in the type they have there,
    under their present names; where there are no files (a teacher made here), from their parameters. Tokenizers,
    safety checker and feature extractor are copied where the teacher's folder has them, and null in
    `model_index.json` where not. Pickles are not copied, and configurations name no path of this machine.

    Args:
      folder: where to. It appears in one step, when it is complete.
      pipeline: its networks, tokenizers and index.
      unet_params: the student's parameters; None: those of the pipeline.
      scheduler_config: what to write instead of the teacher's; its `_class_name` goes into `model_index.json`.
      about: facts for the file `sid_jax.json`, such as the number of steps and the first time.
      texts: further files, path in the folder to content.
      overwrite: replace a diffusers folder too that was not written by this function, or was changed since. What does
        not belong to a pipeline, such as notes and `.git`, stays in it.
      shard_bytes: size beyond which weights are split into several files.

    Raises:
      UserError: `folder` is a link, a file, the current directory, or a folder with other things in it; or files of
        the teacher are unusable.
    """
    scheduler = dict(scheduler_config or pipeline.scheduler_config)
    networks = dict(pipeline.components)
    if unet_params is not None:
        networks["unet"] = pipeline.unet.made_of(unet_params)
    with exported(Path(folder), _LAYOUT, source=pipeline.folder, overwrite=overwrite) as new:
        for name, component in networks.items():
            _write_component(new / name, component, float32=name == "unet", shard_bytes=shard_bytes)
        for name, tokenizer in zip(pipeline.kind.tokenizers, pipeline.tokenizers, strict=True):
            if pipeline.folder is None:
                tokenizer.save_pretrained(new / name)
            else:
                copy_files(pipeline.folder / name, new / name)
        if pipeline.folder is not None:
            copy_optional(pipeline.folder, new)
        (new / "scheduler").mkdir()
        write_json(new / "scheduler" / "scheduler_config.json", scheduler)
        index = index_without_missing(new, pipeline.model_index)
        write_json(new / INDEX, index | {"scheduler": ["diffusers", scheduler["_class_name"]]})
        write_json(new / MARKER, {**(about or {}), "written_by": "sid_jax"})
        for name, text in (texts or {}).items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(text, encoding="utf-8")


def _write_component(folder: Path, component: Component, *, float32: bool, shard_bytes: int) -> None:
    folder.mkdir()
    write_json(folder / "config.json", component.config_json)
    stored, tensors = component.state_dict()
    if float32:
        stored = {name: Stored(entry.shape, "float32") for name, entry in stored.items()}
    write_weights(folder, NETWORK_TYPES[component.class_name].stem, stored, tensors, shard_bytes=shard_bytes)
