"""The file in every folder that is written here, by which a student is known from a teacher."""

from pathlib import Path
from typing import Any

from sid_jax.errors import UserError
from sid_jax.runtime.storage.json_files import read_json

MARKER = "sid_jax.json"


def is_export(folder: Path) -> bool:
    """Whether sid_jax has written `folder`."""
    file = folder / MARKER
    return file.is_file() and read_json(file).get("written_by") == "sid_jax"


def about(folder: Path) -> dict[str, Any]:
    """What `MARKER` says of a student: nothing, or its `config` and `step`, and perhaps `teacher_scheduler`.

    Raises:
      UserError: one of them is missing or of another type; without it the student would be taken for a teacher, or for
        another student.
    """
    if not is_export(folder):
        return {}
    said = read_json(folder / MARKER)
    if not said.keys() & {"config", "step", "teacher_scheduler"}:  # a teacher that was made here
        return said
    for name in ("config", "teacher_scheduler"):
        if not isinstance(said.get(name, {} if name == "teacher_scheduler" else None), dict):
            raise UserError(f"{folder / MARKER}: {name} is {said.get(name)!r:.80}; a JSON object is needed")
    if not isinstance(said["config"].get("family", ""), str):
        raise UserError(f"{folder / MARKER}: the config's family is {said['config']['family']!r:.80}; a name is needed")
    step = said.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**63:
        raise UserError(f"{folder / MARKER}: step is {step!r:.80}; a number of updates is needed")
    return said
