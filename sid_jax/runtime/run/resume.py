"""Whether a run can go on with a config: the settings that change the training must be those it was started with."""

import json
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any

from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file

# Settings that may change. A checkpoint does not depend on what is written, on how long the run is, on the devices, or
# on how they compute. Nor does it depend on where the prompts or counts are: what they say is compared elsewhere.
_FREE = (
    "images", "log_every", "sample_every", "sample_images", "sample_prompts", "max_bad_steps", "on_failed_save",
    "prompts", "labels.counts", "remat", "scan",
)  # fmt: skip
_FREE_GROUPS = ("attention.", "evaluate.", "mesh.", "text.", "wandb.", "checkpoint_", "keep_")
_TEACHER = ("teacher", "variant", "revision")  # where the teacher is, and not which one it is
_PATHS = ("teacher", "student", "real.source", "real.data_dir")
_BEFORE = {"guidance.drop_before_generator": False}  # what was done before there was a setting, if not its default
_UNSET = "unset"

_log = logging.getLogger(__name__)


def training_differences(
    saved: Mapping[str, Any], current: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, tuple[Any, Any]]:
    """The keys that differ and change the training, each with its saved and its current value.

    A key that was renamed since counts under its new name, and a relative path as the absolute one that it is now. A
    key that did not exist when the run was started is none at the value that trains as before, mostly its default.

    Args:
      saved: the config of a checkpoint, as JSON has it.
      current: the resolved config as nested dicts.
      defaults: those of all keys, as nested dicts; of a key that has none, the saved config must have a value.
    """
    before, now, as_before = _flat(saved), _flat(_plain(current)), _flat(_plain(defaults or {})) | _BEFORE
    before = {key: value for key, value in as_before.items() if now.get(key, _UNSET) == value} | before
    keys = [key for key in sorted(before | now) if key not in _FREE and not key.startswith(_FREE_GROUPS)]
    values = {key: (before.get(key, _UNSET), now.get(key, _UNSET)) for key in keys}
    return {key: (old, new) for key, (old, new) in values.items() if old != new and not _one_place(key, old, new)}


def check_same_form(saved: Collection[str] | None, current: Collection[str], workdir: str) -> None:
    """Stops a run whose checkpoints another version of sid_jax has written, with another form of the state.

    Args:
      saved: the names of the fields of a checkpoint's state; None: they could not be read.
      current: those of a state now.
      workdir: of the run.

    Raises:
      UserError: they differ.
    """
    if saved is None or set(saved) == set(current):
        return
    kept, lacking = ", ".join(sorted(set(saved) - set(current))), ", ".join(sorted(set(current) - set(saved)))
    raise UserError(
        f"{workdir} has a run of another version of sid_jax (its state has {kept or 'nothing else'} and lacks "
        f"{lacking or 'nothing'}): finish it with that version, or begin anew in another --workdir; "
        "its student can still be sampled, evaluated and exported"
    )


def check_same_training(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    workdir: str,
    force: bool = False,
    same_teacher: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Stops a run that would go on with other settings than it was started with.

    Args:
      saved: the config of a checkpoint, as JSON has it.
      current: the resolved config as nested dicts.
      workdir: the run's folder, for the error.
      force: reports the differences through logging instead.
      same_teacher: the teacher is known to be that of the run, so that its place may have changed.
      defaults: see `training_differences`.

    Raises:
      UserError: `training_differences` has some.
    """
    differences = training_differences(saved, current, defaults)
    if same_teacher:
        differences = {key: values for key, values in differences.items() if key not in _TEACHER}
    if not differences:
        return
    shown = ", ".join(
        f"{key} was {json.dumps(old)} and is {json.dumps(new)}" for key, (old, new) in differences.items()
    )
    if not force:
        raise UserError(
            f"{workdir} has a run with other settings: {shown}; set them back, or use another --workdir, "
            "or --resume=force to go on with them"
        )
    _log.warning("going on with other settings, as --resume=force asks: %s", shown)


def _one_place(key: str, old: Any, new: Any) -> bool:
    """Whether two values are the same path, of which one is relative or has a `~`."""
    if key not in _PATHS or not (isinstance(old, str) and isinstance(new, str) and old and new):
        return False
    one, other = (os.path.abspath(os.path.expanduser(value)) for value in (old, new))
    return one == other and os.path.exists(one)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them, which knows no tuples."""
    return json.loads(json.dumps(settings))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under their dotted keys, by the names that those have today."""
    flat = config_file.flatten(settings)
    return {config_file.RENAMED.get(key, key): value for key, value in flat.items()}
