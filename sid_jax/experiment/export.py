"""Writes a distilled student in the form of its teacher."""

from collections.abc import Mapping
from typing import Any

from sid_jax.experiment.build import guidance_of
from sid_jax.experiment.student import Student
from sid_jax.formats.hub import is_hub_id
from sid_jax.formats.local_paths import last_name
from sid_jax.teachers.teacher import Export


def write_export(student: Student, folder: str, *, overwrite: bool = False) -> None:
    """Writes a student's folder, whole or not at all. It names no path of this machine.

    Args:
      student: the parameters of its teacher's other networks may be abstract; they are copied from its files.
      folder: where to.
      overwrite: replace a model that was not written so, or that was changed since.

    Raises:
      UserError: the folder can't be written, or holds something else.
    """
    config = student.config
    exported = Export(student.params, student.sampler, published(config.to_dict()), student.step, guidance_of(config))
    student.teacher.write(folder, exported, overwrite=overwrite)


def published(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as others may see them: of every path its last name, and nothing of an account of Weights & Biases.

    What is bundled, of TensorFlow Datasets, or a teacher or student on the hub, is the same everywhere: it keeps its
    name.
    """
    public = {key: _published(value) for key, value in settings.items()}
    for key in ("teacher", "student"):
        name = settings.get(key)
        if isinstance(name, str) and is_hub_id(name):
            public[key], public["revision"] = name, settings.get("revision", "main")
    if isinstance(public.get("wandb"), dict):
        public["wandb"] = {key: "" for key in public["wandb"]}
    return public


def _published(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _published(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_published(inner) for inner in value]
    if isinstance(value, str) and not value.startswith(("bundled:", "tfds:")):
        return last_name(value)
    return value
