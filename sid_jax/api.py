"""What the commands do, in Python: open a teacher or a student and look at images, distill, measure, export.

    import sid_jax

    student = sid_jax.distill("digits_1step", workdir="runs/digits")
    images = student.images(["a handwritten seven"] * 8, seed=0)

An image depends on the model, the prompt or class, the seed, and its place in the list, and on nothing else: it is the
one that `python -m sid_jax.sample` makes. What a user can get wrong raises `sid_jax.errors.UserError`, of one line.
"""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import sid_jax.config
from sid_jax import train
from sid_jax.errors import UserError
from sid_jax.evaluation import measure as measuring
from sid_jax.evaluation.places import placed
from sid_jax.evaluation.report import Evaluation
from sid_jax.experiment.opened import Student, Teacher, export, open_student, open_teacher
from sid_jax.experiment.student import open_run
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.devices import jax_settings

__all__ = [
    "Evaluation",
    "Student",
    "Teacher",
    "UserError",
    "distill",
    "export",
    "measure",
    "open_student",
    "open_teacher",
]


def distill(
    config: str | os.PathLike | ConfigDict,
    workdir: str | os.PathLike | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    resume: str = "auto",
) -> Student:
    """Distills a teacher, as `python -m sid_jax.train` does, and opens the student.

    The run can be interrupted, and goes on where it was when it is called again with the same arguments; where it has
    ended already, it is only opened.

    Args:
      config: a config file, or the name of one that comes with the package; or a config, such as
        `sid_jax.config.default()` returns, which is not changed.
      workdir: the run's folder; of a file by default `runs/` with the name of the file.
      settings: replace those of the config, by key: `{"images": 6400, "guidance.kappa4": 1.5}`.
      resume: "auto"; or "force": go on although settings, prompts or teacher are not those that the run was started
        with; or "restart": begin anew in a folder whose checkpoints are gone.

    Raises:
      UserError: a setting, a file or the folder is unusable; or the losses stayed non-finite.
      Preempted: the process was told to end, and has saved.
    """
    if resume not in train.RESUME:
        raise UserError(f"resume is {resume!r}: use one of {', '.join(train.RESUME)}")
    overrides = [(key, _text(value)) for key, value in (settings or {}).items()]
    if isinstance(config, ConfigDict):
        if workdir is None:
            raise UserError("workdir is missing: name the folder of the run")
        own = copy.deepcopy(config).unlock()
        resolved = config_file.resolved(own, sid_jax.config.schema_of, overrides, "config")
    elif isinstance(config, str | os.PathLike):
        resolved = config_file.load(os.fspath(config), sid_jax.config.schema_of, overrides)
        workdir = f"runs/{Path(config).stem}" if workdir is None else workdir
    else:
        raise UserError(f"config is {type(config).__name__}: give a file, or what sid_jax.config.default() returns")
    with jax_settings.fixed():
        train.distill(resolved, os.fspath(workdir), resume)
    return open_student(workdir)


def measure(
    student: Student | str | os.PathLike,
    *,
    samples: int | None = None,
    teacher: str | os.PathLike | None = None,
    prompts: str | os.PathLike | None = None,
    metric: str | os.PathLike | None = None,
) -> Evaluation:
    """Measures a student beside its teacher, as `python -m sid_jax.evaluate` does.

    Args:
      student: or what `open_student` takes.
      samples: images of each; by default as many as the config of the run says.
      teacher: folder or hub id of the teacher, where an export does not say it.
      prompts: file of the prompts, likewise.
      metric: folder of the metric network, likewise.

    Returns:
      its `rows` are {"teacher": {column: value}, "student": ...}, its `picture` shows both side by side, and `print`
      shows the table.

    Raises:
      UserError: there is no metric for such images, or something is not where it is said to be.
    """
    opened = open_student(student) if isinstance(student, str | os.PathLike) else student
    given = {"teacher": teacher, "prompts": prompts, "metric": metric}
    with jax_settings.fixed():
        if opened.from_run:
            # Whether its teacher is still the one that it began with was not looked at before: more is read for that.
            distilled = placed(open_run(opened.source, step=opened.step, with_teacher=True), given)
        else:
            distilled = placed(opened.distilled, given, exported=opened.source)
        return measuring.measure(distilled, samples)


def _text(value: Any) -> str:
    """A setting as the command line has it. Those of several numbers are sizes: `(512, 768)` is 512x768 there."""
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
