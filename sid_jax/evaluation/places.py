"""Where a student's teacher, prompts and metric are, on the machine that measures it."""

import dataclasses
import os
from collections.abc import Mapping

from sid_jax.errors import UserError
from sid_jax.experiment.student import Student

PLACES = {
    "teacher": ("teacher", "folder or hub id of the teacher"),
    "prompts": ("prompts", "file of the prompts"),
    "metric": ("evaluate.metric", "folder of the metric network"),
}
"""By what a user calls it, the key of the config, and what it says where to find."""


def placed(
    student: Student, given: Mapping[str, str | os.PathLike | None], exported: str = "", dashes: str = ""
) -> Student:
    """The student with a config that says where things are here.

    Args:
      student: its config is not changed.
      given: places by the names of `PLACES`; None: what the config says.
      exported: the folder that the student is from, if `export` wrote it; else empty.
      dashes: what stands before the names in errors: "--" where they are flags.

    Raises:
      UserError: an export was made of something on another machine, whose name could be that of something else here,
        and nothing says where it is; or something is given that models of this family do not have.
    """
    config = student.config.copy_and_resolve_references()
    for name, (key, what) in PLACES.items():
        group, _, leaf = key.rpartition(".")
        owner, place = config[group] if group else config, given.get(name)
        if place is not None:
            if leaf not in owner:
                raise UserError(f"{dashes}{name}: models of this family have no {leaf}")
            owner[leaf] = os.fspath(place)
            continue
        value = owner.get(leaf, "")
        # Exports of old versions have whole paths.
        everywhere = value.startswith("bundled:") or os.path.isabs(value) or (key == "teacher" and "/" in value)
        if exported and value and not everywhere:
            raise UserError(
                f"{exported} names {value!r} and not where it is: "
                f"{f'{dashes}{name} PATH' if dashes else f'{name}=PATH'} says so ({what})"
            )
    return dataclasses.replace(student, config=config.lock())
