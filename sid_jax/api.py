"""What the commands do, in Python: open a teacher or a student and look at images, distill, measure, export.

    import sid_jax

    student = sid_jax.distill("digits_1step", workdir="runs/digits")
    images = student.images(["a handwritten seven"] * 8, seed=0)

An image depends on the model, the prompt or class, the seed, and its place in the list, and on nothing else: it is the
one that `python -m sid_jax.sample` makes. What a user can get wrong raises `sid_jax.errors.UserError`, of one line.
"""

import copy
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from ml_collections import ConfigDict

import sid_jax.config
from sid_jax import train
from sid_jax.errors import UserError
from sid_jax.evaluation import measure as measuring
from sid_jax.evaluation.by_protocol import Said, prepared
from sid_jax.evaluation.places import placed
from sid_jax.evaluation.protocol_report import ProtocolReport
from sid_jax.evaluation.protocols import DIGITS
from sid_jax.evaluation.report import Evaluation
from sid_jax.evaluation.request import NETWORKS
from sid_jax.experiment.opened import Student, Teacher, export, open_student, open_teacher
from sid_jax.experiment.student import is_run, open_run
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.devices import jax_settings

__all__ = [
    "Evaluation",
    "ProtocolReport",
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


Place = str | os.PathLike


@overload
def measure(
    student: Student | Place,
    *,
    samples: int | None = None,
    teacher: Place | None = None,
    prompts: Place | None = None,
    metric: Place | None = None,
) -> Evaluation: ...


@overload
def measure(
    student: Student | Place,
    *,
    protocol: str,
    samples: int | None = None,
    teacher: Place | None = None,
    prompts: Place | None = None,
    reference: Place | Mapping[str, Place] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ProtocolReport: ...


def measure(
    student: Student | Place,
    *,
    samples: int | None = None,
    teacher: Place | None = None,
    prompts: Place | None = None,
    metric: Place | None = None,
    protocol: str | None = None,
    reference: Place | Mapping[str, Place] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation | ProtocolReport:
    """Measures a student, as `python -m sid_jax.evaluate` does: beside its teacher, or by a protocol.

    Args:
      student: or what `open_student` takes; by a protocol also a teacher's folder, file or hub id.
      samples: images of each; by default as many as the config of the run says, or the protocol.
      teacher: folder or hub id of the teacher, where an export does not say it. By a protocol the teacher is measured
        too if this is given; "" is the one that the config names.
      prompts: file of the prompts, likewise; of a protocol that has prompts, its own.
      metric: folder of the metric network, likewise.
      protocol: that of a published table, such as "cifar10" (docs/evaluate.md).
      reference: its statistics of real images: a file, or one for each metric by its name.
      settings: what else the command's flags of protocols say, by their names: `{"metrics": "fid", "seeds": [0, 1]}`.

    Returns:
      without a protocol the table: its `rows` are {"teacher": {column: value}, "student": ...}, its `picture` shows
      both side by side, and `print` shows the table. By a protocol the report: `as_json()` has the numbers, and `print`
      shows them and what they may be compared with.

    Raises:
      UserError: there is no metric for such images, or something is not where it is said to be; or what is given does
        not fit the protocol.
    """
    if protocol is not None and protocol != DIGITS:
        if metric is not None:
            raise UserError(f"metric is for tables without a protocol: {protocol} has networks of its own")
        given = {"samples": samples, "teacher": teacher, "prompts": prompts}
        with jax_settings.fixed():
            return prepared(_said(student, protocol, given, reference, settings or {}))()
    for name, value in (("reference", reference), ("settings", settings)):
        if value is not None:
            raise UserError(f"{name} is of the protocols of published tables: name one with protocol")
    opened = open_student(student) if isinstance(student, str | os.PathLike) else student
    places = {"teacher": teacher, "prompts": prompts, "metric": metric}
    with jax_settings.fixed():
        if opened.from_run:
            # Whether its teacher is still the one that it began with was not looked at before: more is read for that.
            distilled = placed(open_run(opened.source, step=opened.step, with_teacher=True), places)
        else:
            distilled = placed(opened.distilled, places, exported=opened.source)
        return measuring.measure(distilled, samples)


def _listed(value: Any) -> str:
    """One value, or several, as a flag has them."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return ",".join(map(str, value)) if several else str(value)


_KINDS: Mapping[str, Callable[[Any], Any]] = {
    "samples": operator.index, "teacher": os.fspath, "prompts": os.fspath,
    "metrics": _listed, "seeds": _listed, "steps": operator.index, "guidance": float, "batch": operator.index,
    "dump": os.fspath, "out": os.fspath, **dict.fromkeys(NETWORKS, os.fspath),
}  # fmt: skip
"""What is given of a measurement by a protocol, and what makes of it what a flag has."""


def _said(
    student: Student | Place,
    protocol: str,
    given: Mapping[str, Any],
    reference: Place | Mapping[str, Place] | None,
    settings: Mapping[str, Any],
) -> Said:
    """What the command's flags would say. Raises UserError where a setting is none, or of another type."""
    for name in settings:
        if name not in _KINDS or name in given:
            there = ", ".join(each for each in _KINDS if each not in given)
            raise UserError(f"settings has {name!r:.60}, and a measurement by a protocol takes {there}")
    values: dict[str, Any] = {}
    for name, value in {**given, **settings}.items():
        if value is not None:
            try:
                values[name] = _KINDS[name](value)
            except (TypeError, ValueError):
                raise UserError(f"{name} is {value!r:.60}: that is no value of it") from None
    files = reference if isinstance(reference, Mapping) else {"": reference} if reference is not None else {}
    references = [f"{name}={os.fspath(file)}" if name else os.fspath(file) for name, file in files.items()]
    if isinstance(student, str | os.PathLike):
        values["run" if is_run(os.fspath(student)) else "model"] = os.fspath(student)
    else:
        values |= {"run": student.source, "step": student.step} if student.from_run else {"model": student.source}
    return Said(protocol, reference=references, dashes="", **values)


def _text(value: Any) -> str:
    """A setting as the command line has it. Those of several numbers are sizes: `(512, 768)` is 512x768 there."""
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
