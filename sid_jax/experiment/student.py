"""A distilled generator, from a run or from what `export` wrote."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax.errors import UserError, errors_in
from sid_jax.experiment.build import few_step_of, matmul_of, open_teacher
from sid_jax.families.open import open_source
from sid_jax.families.open import open_teacher as teacher_in
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.run.checkpoints import Checkpoints
from sid_jax.runtime.run.record import check_teacher_of_run
from sid_jax.runtime.storage.files import absolute, reaching
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.runtime.storage.small_files import Unreadable
from sid_jax.sid import FewStep
from sid_jax.size import Resolution
from sid_jax.teachers.teacher import PARTS, Teacher


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """A distilled generator, from a run or from an export.

    teacher: what it came from. Of an export this is the export itself.
    params: of the student's denoiser (G_ema), float32.
    sampler: how it is sampled.
    config: that of its run.
    step: updates it was trained for.
    """

    teacher: Teacher
    params: Any
    sampler: FewStep
    config: ConfigDict
    step: int


class Model(NamedTuple):
    """What a folder has: a teacher, and where `export` wrote the folder the student that it is."""

    teacher: Teacher
    student: Student | None

    @property
    def params(self) -> Any:
        """Of the denoiser that makes images."""
        return self.teacher.denoiser.params if self.student is None else self.student.params

    @property
    def resolution(self) -> Resolution:
        """Of the images that it makes, in pixels."""
        return self.teacher.space.resolution if self.student is None else self.student.config.resolution


def is_run(name: str) -> bool:
    """Whether a name is that of a run's folder, which has checkpoints."""
    folder = absolute(name)
    with reaching(folder):
        return (folder / "checkpoints").is_dir()


def config_of_run(workdir: str) -> ConfigDict:
    """The settings of a run.

    Raises:
      UserError: it is not the folder of a run, or its `config.json` is no config.
    """
    file = absolute(workdir) / "config.json"
    with reaching(file):
        try:
            saved = read_json(file)
        except Unreadable as error:
            if not error.missing:
                raise
            raise UserError(f"{workdir} is not the folder of a run: it has no config.json") from None
    with errors_in(str(file)):
        return _config_of(json.dumps(saved))


def open_run(
    workdir: str,
    *parts: str,
    step: int | None = None,
    with_teacher: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> Student:
    """The student of a checkpoint of a run; of its teacher, these parts have parameters.

    Args:
      workdir: the run's folder.
      *parts: of the teacher.
      step: the update whose checkpoint is read; None: the newest that can be read.
      with_teacher: whether the teacher's denoiser is used too, and so must be the one that the run began with.
      mesh: that the student's parameters are sharded over; by default they are all on one device.

    Raises:
      UserError: it is not the folder of a run, has no checkpoint that can be read, or none of that update; or its
        teacher was replaced.
    """
    config, folder = config_of_run(workdir), absolute(workdir)
    with reaching(folder):
        if not (folder / "checkpoints").is_dir():
            raise UserError(f"{workdir} has no checkpoint yet: the first is written after checkpoint_every updates")
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        checkpoints.check_step(step)  # before the teacher is read, which takes long
        teacher = open_teacher(config, *parts)
        fingerprints = functools.partial(teacher.fingerprints, denoiser=with_teacher)
        check_teacher_of_run(folder, fingerprints, () if with_teacher else (teacher.denoiser.name,))
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def placed(p: Any) -> jax.ShapeDtypeStruct:
            sharding = meshes.parameter_sharding(p.shape, mesh) if mesh else device
            return jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=sharding)

        abstract = jax.tree.map(placed, teacher.denoiser.params)
        restored = checkpoints.restore({"ema": abstract}, partial=True, step=step)
    return Student(teacher, restored.state["ema"], few_step_of(config, teacher.process), config, restored.step)


def open_start(config: ConfigDict, teacher: Teacher, mesh: jax.sharding.Mesh) -> nnx.State | None:
    """The parameters that a run's generator begins with, where its config names a `student`; None: the teacher's.

    Args:
      config: the run's.
      teacher: the run's.
      mesh: that the parameters are sharded over.

    Raises:
      UserError: the student can't be opened, or is of another network than the teacher.
    """
    name = config.get("student")
    if not name:
        return None
    if from_run := is_run(name):
        student = open_run(name, mesh=mesh)
        denoiser = student.teacher.denoiser.with_params(student.params)
    else:
        denoiser = teacher_in(open_source(name), config.family).denoiser
    if _shapes(denoiser.params) != _shapes(teacher.denoiser.params):
        raise UserError(
            f"config key student: {name} has other tensors than the teacher {config.teacher}: name its student"
        )
    return denoiser.params if from_run else denoiser.load(place=meshes.into_shards(mesh, jnp.float32)).params


def open_model(
    folder: str, *, variant: str = "", revision: str = "main", mesh: jax.sharding.Mesh | None = None
) -> Model:
    """The teacher or the exported student in a folder, with all parameters.

    Args:
      folder: or a file, or a hub id.
      variant: of the weights; "fp16" reads `*.fp16.safetensors`.
      revision: branch, tag or commit of a hub id.
      mesh: that the parameters are sharded over; by default they are all on one device.

    Raises:
      UserError: it is nothing that can be opened, or a file in it is missing or damaged.
    """
    place = meshes.into_shards(mesh, jnp.float32) if mesh else None
    bundle = open_source(folder, variant=variant, revision=revision)
    teacher, about = teacher_in(bundle), bundle.about
    if "config" not in about:
        return Model(teacher.load(*PARTS, place=place), None)
    with errors_in(bundle.about_at):  # and before anything large is read
        config = _config_of(json.dumps(about["config"]))
        sampler = few_step_of(config, teacher.process)
        teacher.space.shape(config.resolution)
        matmul = matmul_of(config)
    teacher = dataclasses.replace(teacher, denoiser=dataclasses.replace(teacher.denoiser, matmul=matmul))
    teacher = teacher.load(*PARTS, place=place)
    return Model(teacher, Student(teacher, teacher.denoiser.params, sampler, config, about["step"]))


def _config_of(text: str) -> ConfigDict:
    config = config_file.from_json(text, sid_jax.config.schema_of)
    sid_jax.config.check_settings(config)
    return config


def _shapes(params: nnx.State) -> dict[Any, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in nnx.to_flat_state(params)}
