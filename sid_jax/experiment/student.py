"""A distilled generator, from a run or from an exported folder."""

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax import assets
from sid_jax.errors import UserError
from sid_jax.experiment.build import open_teacher, sampler_of
from sid_jax.families.diffusers_export import MARKER, is_export
from sid_jax.families.stable_diffusion import Teacher, load_teacher
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.run.checkpoints import Checkpoints
from sid_jax.sid import FewStep


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """A distilled generator, from a run or from an exported folder.

    teacher: the pipeline it came from. Of an exported folder this is the folder itself.
    params: of the student's UNet (G_ema), float32.
    sampler: how it is sampled.
    config: that of its run.
    step: updates it was trained for.
    """

    teacher: Teacher
    params: Any
    sampler: FewStep
    config: ConfigDict
    step: int


def open_run(workdir: str, parts: Collection[str] = ("vae", "text_encoders"), fetch: Collection[str] = ()) -> Student:
    """The student of the newest checkpoint of a run; `parts` and `fetch` are those of `open_teacher`.

    Raises:
      UserError: it is not the folder of a run, or has no checkpoint that can be read.
    """
    folder = Path(workdir)
    if not (folder / "config.json").is_file():
        raise UserError(f"{workdir} is not the folder of a run: it has no config.json")
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no checkpoint yet: the first is written after checkpoint_every updates")
    config = config_file.from_json((folder / "config.json").read_text(), sid_jax.config.default())
    teacher = open_teacher(config, parts, fetch)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=device), teacher.unet.params)
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    restored = checkpoints.restore({"ema": abstract}, part=True)
    checkpoints.close()
    return Student(teacher, restored.state["ema"], sampler_of(config, teacher), config, restored.step)


def open_model(folder: str) -> Student | Teacher:
    """An exported student, or, where the folder was not written by `export`, a teacher.

    Raises:
      UserError: it is not a diffusers folder, or a file in it is missing or damaged.
    """
    path = Path(assets.resolve(folder))
    about = json.loads((path / MARKER).read_text()) if is_export(path) else {}
    if "config" not in about:
        return load_teacher(path)
    config = config_file.from_json(json.dumps(about["config"]), sid_jax.config.default())
    exported = load_teacher(path)
    # The scheduler of the folder is for PyTorch; the forward process is the teacher's.
    teacher = dataclasses.replace(exported, scheduler_config=about["teacher_scheduler"])
    return Student(teacher, teacher.unet.params, sampler_of(config, teacher), config, about["step"])
