"""Models as the Python API has them: a teacher or a student that is open, and what can be done with it."""

import os
from collections.abc import Sequence

import numpy as np

from sid_jax.errors import UserError
from sid_jax.experiment.export import write_export
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.sampling import Wanted, program_of
from sid_jax.experiment.student import Model, is_run, open_model, open_run
from sid_jax.experiment.student import Student as Distilled
from sid_jax.runtime.devices import jax_settings
from sid_jax.runtime.storage.files import on_disk
from sid_jax.size import size_of

Requested = str | int | Sequence[str] | Sequence[int] | None
"""Prompts, or class labels: one of them, or one for each image."""


class Teacher:
    """A diffusion model, with all that sampling from it takes; `open_teacher` returns it.

    Attributes:
      source: where it is from.
      resolution: of its images in pixels: the side of square ones, or (height, width).
    """

    def __init__(self, model: Model, source: str):
        self.source = source
        self.resolution = size_of(model.resolution).plain
        self._model = model
        self._programs: dict[tuple[int | None, float | None], ImageProgram] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.source}, {size_of(self.resolution)} px>"

    def images(
        self,
        prompts: Requested = None,
        seed: int = 0,
        *,
        n: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Images of prompts or classes, in their order.

        The first call compiles; later ones with as many images, or more, go at full speed.

        Args:
          prompts: a prompt or a list of them, for a model that was trained with text; for one that was trained with
            class labels a label, a list of them, or None for each class once.
          seed: of the noise; image i of a seed has noise of its own.
          n: images of each prompt or class.
          steps: of the sampler; by default as a student was trained, or as the model's family samples a teacher.
          guidance: of a teacher; by default its family's. A student has none.

        Returns:
          uint8 `[N, H, W, 3]`; `PIL.Image.fromarray(images[i])` is one of them.

        Raises:
          UserError: the model takes no such prompts or classes, or can't be sampled so; or what it makes is not finite.
        """
        wanted = Wanted(n, seed, steps, guidance)
        asked = wanted.of_each(self._model.teacher.conditions.chosen(prompts))
        with jax_settings.fixed():
            key = (wanted.steps, wanted.guidance)
            if key not in self._programs:
                self._programs[key] = program_of(self._model, wanted.sampler(self._model))
            return self._programs[key](self._model.params, asked, wanted.seed, "sampling")


class Student(Teacher):
    """A distilled generator, which is sampled as a teacher is; `open_student` and `distill` return it.

    Attributes:
      source, resolution: as a teacher has them.
      config: the settings of its run.
      step: updates that it was trained for.
      num_steps: steps that it is sampled with by default.
      distilled: what the rest of the package has for it.
      from_run: whether it is from a run, and not from an export.
    """

    def __init__(self, student: Distilled, source: str, from_run: bool):
        super().__init__(Model(student.teacher, student), source)
        self.config, self.step, self.num_steps = student.config, student.step, student.sampler.num_steps
        self.distilled, self.from_run = student, from_run


def open_teacher(source: str | os.PathLike, *, variant: str = "", revision: str = "main") -> Teacher:
    """Opens a teacher: any model that `sid_jax.train` can distill, or `sid_jax.sample` sample from.

    Args:
      source: a diffusers folder or its hub id, a file or a folder of EDM, or "bundled:digits".
      variant: of the weights; "fp16" reads `*.fp16.safetensors`.
      revision: branch, tag or commit of a hub id.

    Raises:
      UserError: it is nothing that can be opened, or a student; or a file is missing or damaged.
    """
    with jax_settings.fixed():
        model = open_model(os.fspath(source), variant=variant, revision=revision)
    if model.student is not None:
        raise UserError(f"{source} is a student that sid_jax.export wrote: sid_jax.open_student opens it")
    return Teacher(model, os.fspath(source))


def open_student(run_or_folder: str | os.PathLike, *, step: int | None = None) -> Student:
    """Opens a student.

    Args:
      run_or_folder: the folder of a run, or one that `export` wrote, here or on the hub.
      step: the update whose checkpoint is opened; by default the newest. An export has but one.

    Raises:
      UserError: it is neither, has no such checkpoint, or a file is missing or damaged.
    """
    source = os.fspath(run_or_folder)
    with jax_settings.fixed():
        if is_run(source):
            return Student(open_run(source, "conditions", "space", step=step), source, from_run=True)
        if step is not None:
            raise UserError(f"step is of a run's checkpoints, and {source} is not the folder of a run: leave it out")
        model = open_model(source)
    if model.student is None:
        raise UserError(f"{source} is not a student that sid_jax.export wrote: sid_jax.open_teacher opens it")
    return Student(model.student, source, from_run=False)


def export(
    student: Student | str | os.PathLike,
    folder: str | os.PathLike,
    *,
    step: int | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the student of a run in the form of its teacher: for Stable Diffusion a folder that diffusers opens.

    Args:
      student: one that is open; or the folder of a run, of which less is read.
      folder: where to, on a disk. It appears in one step, when it is complete; an earlier export in its place is
        replaced if nothing in it was changed.
      step: of a run, the update whose checkpoint is written; by default the newest.
      overwrite: replace a model too that was changed, or that was not written by an export.

    Raises:
      UserError: the folder can't be written, or holds something else; or the student is an export already.
    """
    out = str(on_disk(folder, "folder"))
    with jax_settings.fixed():
        if isinstance(student, str | os.PathLike):
            distilled = open_run(os.fspath(student), step=step)
        elif step is not None:
            raise UserError("step is of a run's folder, and the student is open: leave it out")
        else:
            distilled = student.distilled
            if not student.from_run:
                raise UserError(f"{student.source} is an export already: copy the folder")
        write_export(distilled, out, overwrite=overwrite)
