"""Where a student's teacher, prompts and metric are, on the machine that measures it."""

import dataclasses
import os
from collections.abc import Mapping

from sid_jax.errors import UserError
from sid_jax.experiment.student import Student
from sid_jax.runtime.cli import config_file

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
    values, changed = config_file.flatten(student.config), dict[str, str]()
    for name, (key, what) in PLACES.items():
        place, value = given.get(name), values.get(key, "")
        if place is not None:
            if key not in values:
                raise UserError(f"{dashes}{name}: models of this family have no {name}")
            changed[key] = os.fspath(place)
            continue
        # Exports of old versions have whole paths.
        everywhere = value.startswith("bundled:") or os.path.isabs(value) or (key == "teacher" and "/" in value)
        if exported and value and not everywhere:
            raise UserError(
                f"{exported} names {value!r} and not where it is: "
                f"{f'{dashes}{name} PATH' if dashes else f'{name}=PATH'} says so ({what})"
            )
    config = student.config.copy_and_resolve_references()
    config.update_from_flattened_dict(changed)
    return dataclasses.replace(student, config=config.lock())
